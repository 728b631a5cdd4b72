"""What detectors are tried on in `python -m benchmarks robustness`: degraded as said, and not moved in time."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import fftconvolve

from benchmarks.quality.degradations import degradations, shoebox
from benchmarks.speed.store_reading import real_rows

RATE = 16_000
CLIPS = Path(__file__).parents[1] / "data" / "grid" / "clips"
EVERY = degradations()


@cache
def clip() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mouth u1 [75, 96, 96] and sound i2 [48000] of one clip, and the sound of others."""
    frames, sound = real_rows(CLIPS)
    return frames[:75, 180:276, 132:228].copy(), sound[:75].reshape(-1), sound[75:].reshape(-1)


@pytest.mark.parametrize("name", EVERY)
def test_a_degradation_keeps_shape_and_time_and_is_the_same_every_time(name):
    mouth, sound, others = clip()
    by = EVERY[name]
    if by.picture:
        out = by.picture(mouth, np.random.default_rng(0))
        assert (out.shape, out.dtype) == (mouth.shape, np.uint8)
        assert np.abs(out.astype(float) - mouth).mean() > 0.5
        assert np.corrcoef(out.ravel(), mouth.ravel())[0, 1] > 0.6
        assert np.array_equal(out, by.picture(mouth, np.random.default_rng(0)))
    if by.sound:
        out = by.sound(sound, np.random.default_rng(0), others)
        assert (out.shape, out.dtype) == (sound.shape, np.int16)
        if name not in (
            "room, 1.2 m away",
            "a bad call",
        ):  # whose echoes resemble a voice as much as the direct sound does
            agreement = fftconvolve(out.astype(float), sound[::-1].astype(float))
            assert abs(int(np.argmax(agreement)) - (len(sound) - 1)) <= RATE // 1000
        assert np.array_equal(out, by.sound(sound, np.random.default_rng(0), others))
    assert bool(by.picture or by.sound) == (name != "clean")


def test_the_room_rings_about_half_a_second_and_starts_with_the_direct_sound():
    response = shoebox((7.1, 5.3, 2.9), -0.85, 1.2)
    fall = np.cumsum(np.square(response)[::-1])[::-1]
    fall = 10 * np.log10(fall / fall[0] + 1e-12)
    assert 0.3 < 3 * (np.argmax(fall < -25) - np.argmax(fall < -5)) / RATE < 0.7
    assert np.abs(response).argmax() == 0
