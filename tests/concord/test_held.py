"""The rule of held pictures: what stands still is found, also where a codec, a zoom or a tracker moves it; lips that speak
are not."""

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concord.arrays.held import PART, RUN, held
from concord.frames import FACE_DETECTED, FACE_INTERPOLATED, HELD

Y, X = np.mgrid[0:96, 0:96].astype(np.float64) - 47.5


def crop(opened=0.0, *, across=0.0, down=0.0, scale=1.0, light=1.0, seed=0):
    """A mouth crop u1 [96, 96]: shaded skin with smooth spots, and lips that are `opened` by so many pixels."""
    x, y = (X - across) / scale, (Y - down) / scale
    spots = np.random.default_rng(seed).uniform(-40, 40, (6, 2))
    skin = 150 + 0.3 * x - 0.5 * y + sum(9 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 60) for a, b in spots)
    lips = 1 / (1 + np.exp(((x / 26) ** 2 + (y / (5 + opened)) ** 2 - 1) * 6))
    return np.clip(light * (skin - 90 * lips), 0, 255).astype(np.uint8)


def speaking(frames, seed=0, rate=25.0):
    """Crops u1 [frames, 96, 96] of a mouth that opens and closes; `rate` pictures per second, repeated to fill the clock."""
    return _speaking(frames, seed, rate).copy()


@lru_cache(maxsize=8)
def _speaking(frames, seed, rate):
    rng = np.random.default_rng(seed)
    pictures, wide = {}, 6.0
    times = np.floor((np.arange(frames) + 0.5) / 25 * rate) / rate
    for t in np.unique(times):
        wide += rng.uniform(2, 4) * (-1 if wide > 8 else 1 if wide < 5 else rng.choice([-1, 1]))
        pictures[t] = crop(wide, across=np.sin(t), seed=seed)
    return np.stack([pictures[t] for t in times])


def faced(crops):
    return np.full(len(crops), FACE_DETECTED, np.uint8)


def test_a_mouth_that_speaks_is_not_held():
    assert not held(speaking(100), faced(range(100))).any()


@pytest.mark.parametrize("rate", [10, 12, 12.5, 15, 23.976, 24, 29.97, 30, 50])
def test_ordinary_rates_are_not_held(rate):
    assert not held(speaking(100, rate=rate), faced(range(100))).any()


@pytest.mark.parametrize("rate", [0.5, 1, 2, 3, 4, 5])
def test_slide_shows_and_very_low_rates_are_held(rate):
    assert held(speaking(100, rate=rate), faced(range(100))).mean() > 0.95


def test_a_photograph_is_held():
    assert held(np.repeat(crop()[None], 60, 0), faced(range(60))).all()


def test_noise_and_refreshed_pictures_do_not_move_a_photograph():
    rng = np.random.default_rng(0)
    grainy = np.stack([np.clip(crop() + rng.normal(0, 4, (96, 96)), 0, 255) for _ in range(60)]).astype(np.uint8)
    assert held(grainy, faced(grainy)).all()
    coded = [np.clip(crop() + np.kron(rng.normal(0, 3, (12, 12)), np.ones((8, 8))), 0, 255) for _ in range(5)]
    refreshed = np.repeat(np.stack(coded), 12, 0).astype(np.uint8)
    assert held(refreshed, faced(refreshed)).all()


def grain(crops, deviation, size=1):
    """The crops with fresh noise in each; `size`: pixels of a crop that a pixel of the noise covers, each way."""
    rng = np.random.default_rng(2)
    noise = rng.normal(0, deviation, (len(crops), 96 // size, 96 // size))
    return np.clip(crops + np.kron(noise, np.ones((1, size, size))), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("deviation", "size"), [(8, 2), (12, 1), (18, 1), (12, 2)])
def test_a_grainy_photograph_is_held_and_grainy_speech_is_not(deviation, size):
    still = grain(np.repeat(crop()[None], 75, 0), deviation, size)
    assert held(still, faced(still)).mean() > 0.95
    spoken = grain(speaking(150), deviation, size)
    assert not held(spoken, faced(spoken)).any()
    long = np.concatenate([grain(speaking(PART - 20), deviation, size), still])  # across two parts
    assert np.flatnonzero(held(long, faced(long))).min() >= PART - 40


def test_a_jittering_crop_a_zoom_and_a_fade_do_not_move_a_photograph():
    rng = np.random.default_rng(1)
    jitter = np.stack([crop(across=rng.normal(0, 0.7), down=rng.normal(0, 0.7)) for _ in range(60)])
    zoom = np.stack([crop(scale=1 + 0.06 * k / 25) for k in range(75)])
    fade = np.stack([crop(light=1 - 0.3 * k / 60) for k in range(60)])
    for moved in (jitter, zoom, fade):
        assert held(moved, faced(moved)).all()


def test_a_freeze_is_held_and_nothing_else():
    crops = speaking(100)
    crops[40:60] = crops[40]
    assert np.flatnonzero(held(crops, faced(crops))).tolist() == list(range(40, 60))


def test_a_picture_that_stands_for_three_frames_is_not_held():
    crops = speaking(100)
    crops[40 : 40 + RUN - 1] = crops[40]
    assert not held(crops, faced(crops)).any()
    crops[40 : 40 + RUN] = crops[40]
    assert held(crops, faced(crops)).sum() == RUN


def test_frames_without_a_crop_are_not_held():
    crops = np.repeat(crop()[None], 60, 0)
    flags = faced(crops)
    flags[20:30], crops[20:30] = 0, 0
    flags[30:40] = FACE_INTERPOLATED
    assert np.flatnonzero(~held(crops, flags)).tolist() == list(range(20, 30))


def test_flat_crops_and_short_clips_are_no_error():
    flat = np.zeros((20, 96, 96), np.uint8)
    assert held(flat, faced(flat)).all()
    for frames in range(RUN):
        assert held(flat[:frames], faced(flat[:frames])).tolist() == [False] * frames


def test_a_freeze_across_two_parts_of_a_long_clip_is_found_whole():
    crops = speaking(PART + 60)
    crops[PART - 2 : PART + 2] = crops[PART]
    assert np.flatnonzero(held(crops, faced(crops))).tolist() == list(range(PART - 2, PART + 2))


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    start=st.integers(0, 60),
    length=st.integers(RUN, 40),
    across=st.floats(-0.5, 0.5),
    down=st.floats(-0.5, 0.5),
)
def test_any_freeze_is_found_wherever_its_crop_drifts(seed, start, length, across, down):
    crops = speaking(100, seed)
    still = [crop(3, across=across * k / length, down=down * k / length, seed=seed) for k in range(length)]
    crops[start : start + length] = np.stack(still)
    found = held(crops, faced(crops))
    assert found[start : start + length].all()
    assert found.sum() <= length + 2  # a neighbour may be like it by chance


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), bits=st.integers(0, 255))
def test_only_the_faces_decide_and_marked_flags_give_the_same(seed, bits):
    crops = speaking(60, seed)
    crops[10:30] = crops[10]
    flags = faced(crops) | np.uint8(bits)
    once = held(crops, flags)
    assert np.array_equal(once, held(crops, faced(crops)))
    assert np.array_equal(once, held(crops, flags | once * np.uint8(HELD)))


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_a_clip_played_backwards_has_the_same_freeze(seed):
    crops = speaking(80, seed)
    crops[30:50] = crops[30]
    forwards, backwards = held(crops, faced(crops)), held(crops[::-1].copy(), faced(crops))[::-1]
    assert forwards[30:50].all()
    assert backwards[30:50].all()
