"""Augmentation: each kind does what it says, to real clips, the same every time, and moves nothing in time."""

import logging
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.signal import fftconvolve, welch

from student.data import augment, degrade_picture, degrade_sound

RATE = 16_000
CLIP = Path(__file__).parents[2] / "data" / "grid" / "clips"
PICTURE, SOUND = sorted(augment.PICTURE), sorted(augment.SOUND)


@cache
def real_clip(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey frames around the mouth u1 [75, 96, 96] and sound i2 [48000] of one of four GRID clips."""
    import av

    path = str(sorted(CLIP.glob("*.mp4"))[k])
    with av.open(path) as container:
        frames = np.stack([f.to_ndarray(format="gray") for f in container.decode(video=0)])
    with av.open(path) as container:
        resampler = av.AudioResampler("s16", "mono", RATE)
        sound = np.concatenate([o.to_ndarray()[0] for f in container.decode(audio=0) for o in resampler.resample(f)])
    return frames[:75, 180:276, 132:228].copy(), np.pad(sound, (0, 48_000))[:48_000]


@pytest.fixture
def mouth() -> np.ndarray:
    return real_clip(0)[0]


@pytest.fixture
def sound() -> np.ndarray:
    return real_clip(0)[1]


def lag(sound: np.ndarray, reference: np.ndarray) -> int:
    """Samples by which `sound` comes later than `reference`, where their correlation is highest."""
    agreement = fftconvolve(sound.astype(float), reference[::-1].astype(float))
    return int(np.argmax(agreement)) - (len(reference) - 1)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.astype(float).ravel(), b.astype(float).ravel())[0, 1])


def detail(picture: np.ndarray) -> float:
    """Power of the upper half of spatial frequencies, frames faded out at their edges."""
    taper = np.hanning(picture.shape[1])[:, None] * np.hanning(picture.shape[2])
    spectrum = np.abs(np.fft.fft2((picture.astype(float) - picture.mean()) * taper)) ** 2
    high = np.abs(np.fft.fftfreq(picture.shape[1])) > 0.25
    return float(spectrum[:, high[:, None] | high[None, :]].mean())


# -- what every kind and the mix keep ---------------------------------------------------------------------------------------

pictures = st.tuples(st.integers(1, 5), st.integers(16, 41), st.integers(16, 41)).flatmap(
    lambda shape: arrays(np.uint8, shape)
)
sounds = st.integers(1, 5).flatmap(lambda frames: arrays(np.int16, frames * 640))
seeds = st.integers(0, 2**32 - 1)


def keeps(change, x: np.ndarray, seed: int) -> None:
    """Shape, type and input stay; twice the same."""
    before = x.copy()
    x.flags.writeable = False
    out = change(x, np.random.default_rng(seed))
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    assert np.array_equal(x, before)
    assert np.array_equal(out, change(before, np.random.default_rng(seed)))


@pytest.mark.parametrize("name", PICTURE)
@settings(deadline=None, max_examples=15)
@given(pictures, seeds)
def test_a_kind_of_picture_keeps_shape_type_and_input(name, picture, seed):
    keeps(augment.PICTURE[name].change, picture, seed)


@pytest.mark.parametrize("name", SOUND)
@settings(deadline=None, max_examples=15)
@given(sounds, seeds)
def test_a_kind_of_sound_keeps_shape_type_and_input(name, sound, seed):
    keeps(augment.SOUND[name].change, sound, seed)


@settings(deadline=None, max_examples=30)
@given(pictures, sounds, seeds)
def test_the_mix_keeps_shape_type_and_input(picture, sound, seed):
    keeps(augment.augment_mouth, picture, seed)
    keeps(augment.augment_sound, sound, seed)


@pytest.mark.parametrize("side", [88, 96, 112])
def test_pictures_of_any_side_and_views_will_do(mouth, side):
    whole = np.pad(mouth[:9], ((0, 0), (8, 8), (8, 8)), "edge")
    view = whole[:, 112 - side :, 112 - side :]
    for seed in range(20):
        out = augment.augment_mouth(view, np.random.default_rng(seed))
        assert (out.shape, out.dtype) == (view.shape, np.uint8)
        assert np.array_equal(out, augment.augment_mouth(view.copy(), np.random.default_rng(seed)))


@pytest.mark.parametrize("name", SOUND)
def test_silence_stays_quiet(name):
    for seed in range(4):
        out = augment.SOUND[name].change(np.zeros(6400, np.int16), np.random.default_rng(seed))
        assert np.abs(out).max() <= 1


@pytest.mark.parametrize("name", PICTURE)
@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_frames_will_do(name, level):
    if name in ("light", "patch"):
        return  # which change what is flat, as they should
    frames = np.full((4, 88, 88), level, np.uint8)
    out = augment.PICTURE[name].change(frames, np.random.default_rng(0)).astype(int)
    assert np.abs(out - level).mean() < 8


def test_windows_differ_and_some_stay_as_they_are(mouth, sound):
    few = mouth[:5]
    found = [augment.augment_mouth(few, np.random.default_rng(seed)).tobytes() for seed in range(20)]
    assert len(set(found)) == 20


# -- the picture's kinds ----------------------------------------------------------------------------------------------------


def test_blur_and_fewer_pixels_take_detail_and_keep_the_rest(mouth):
    for change, strengths in (
        (degrade_picture.blur, (0.5, 1, 2.5)),
        (degrade_picture.low_resolution, (0.7, 0.5, 0.25)),
    ):
        left = [detail(change(mouth, s)) / detail(mouth) for s in strengths]
        assert left == sorted(left, reverse=True)
        assert left[0] < 0.9
        assert left[-1] < 0.05
        assert abs(change(mouth, strengths[-1]).mean() - mouth.mean()) < 1
        assert correlation(change(mouth, strengths[-1]), mouth) > 0.9


def test_blur_has_the_width_it_is_told():
    step = np.zeros((1, 61, 61), np.uint8)
    step[0, :, 30:] = 200
    edge = np.diff(degrade_picture.blur(step, 2.0)[0, 30].astype(float))
    place = np.arange(60) + 0.5
    mean = (edge * place).sum() / edge.sum()
    assert np.sqrt((edge * (place - mean) ** 2).sum() / edge.sum()) == pytest.approx(2.0, abs=0.1)
    assert mean == pytest.approx(29.5, abs=0.02)


def test_sensor_noise_has_its_strength_grows_with_light_and_is_new_in_each_frame():
    for level, expected in ((32, 4 * np.sqrt(0.5 + 0.125)), (128, 4), (200, 4 * np.sqrt(0.5 + 0.5 * 200 / 128))):
        flat = np.full((20, 88, 88), level, np.uint8)
        noise = degrade_picture.sensor_noise(flat, 4.0, np.random.default_rng(0)).astype(float) - level
        assert noise.std() == pytest.approx(expected, rel=0.05)
        assert abs(noise.mean()) < 0.1
        assert abs(correlation(noise[0], noise[1])) < 0.05


@pytest.mark.parametrize("side", [88, 90, 96])
def test_jpeg_in_one_image_equals_one_image_a_frame(mouth, side):
    import cv2

    frames = np.ascontiguousarray(mouth[:6, :side, :side])
    single = [
        cv2.imdecode(
            cv2.imencode(".jpg", np.pad(f, ((0, -side % 8), (0, 0)), "edge"), [cv2.IMWRITE_JPEG_QUALITY, 20])[1], 0
        )
        for f in frames
    ]
    assert np.array_equal(degrade_picture.jpeg(frames, 20), np.stack(single)[:, :side])


def test_jpeg_of_more_frames_than_one_image_holds(mouth):
    many = np.tile(mouth[:9], (80, 1, 1))
    assert len(many) * 96 > degrade_picture.JPEG_SIDE
    assert np.array_equal(degrade_picture.jpeg(many, 30), np.tile(degrade_picture.jpeg(mouth[:9], 30), (80, 1, 1)))


@pytest.mark.parametrize("preset", ["ultrafast", "veryfast"])
def test_codecs_change_pixels_more_at_lower_quality_and_keep_structure(mouth, preset):
    for change, strengths in (
        (degrade_picture.jpeg, (60, 25, 8)),
        (lambda x, crf: degrade_picture.h264(x, crf, preset), (24, 33, 42)),
    ):
        out = [change(mouth, s) for s in strengths]
        error = [np.abs(o.astype(float) - mouth).mean() for o in out]
        assert 0 < error[0] < error[1] < error[2] < 12
        assert correlation(out[-1], mouth) > 0.9
        assert abs(out[0].mean() - mouth.mean()) < 1  # no range of grey is stretched


def test_h264_keeps_frames_in_step(mouth):
    flash = mouth.copy()
    flash[20] = 255 - flash[20]
    moved = np.abs(degrade_picture.h264(flash, 30, "veryfast").astype(float) - mouth).mean((1, 2))
    assert moved.argmax() == 20


@pytest.mark.parametrize("preset", ["ultrafast", "veryfast"])
def test_h264_gives_the_same_every_time(preset):
    for k in range(4):
        picture = real_clip(k)[0][:, 7:95, :88]
        first = degrade_picture.h264(picture, 32, preset)  # with x264's lookahead some of the next ones differ
        assert all(np.array_equal(first, degrade_picture.h264(picture, 32, preset)) for _ in range(3))


# -- the sound's kinds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bit_rate", [8_000, 16_000, 32_000, 64_000])
@pytest.mark.parametrize("codec", ["mp3", "aac"])
def test_codecs_move_no_sample(sound, codec, bit_rate):
    out = degrade_sound.lossy(sound, codec, bit_rate)
    assert lag(out, sound) == 0
    assert not np.array_equal(out, sound)
    assert correlation(out, sound) > 0.9
    error = [np.abs(degrade_sound.lossy(sound, codec, b) - sound.astype(float)).mean() for b in (8_000, 64_000)]
    assert error[1] < 0.5 * error[0]


@pytest.mark.parametrize("codec", ["mp3", "aac"])
@pytest.mark.parametrize("place", [700, 9_000, 31_000])
def test_a_click_stays_where_it_is(codec, place):
    rng = np.random.default_rng(place)
    click = (200 * rng.standard_normal(32_000)).astype(np.int16)
    click[place : place + 160] = (12_000 * rng.standard_normal(160)).clip(-32768, 32767)
    out = degrade_sound.lossy(click, codec, 48_000)
    assert abs(lag(out, click)) <= RATE // 1000


@pytest.mark.parametrize("name", SOUND)
def test_no_kind_shifts_the_sound(sound, name):
    for seed in range(10):
        out = augment.SOUND[name].change(sound, np.random.default_rng(seed))
        assert abs(lag(out, sound)) <= RATE // 1000


def test_the_mix_does_not_shift_the_sound(sound):
    for seed in range(40):
        assert abs(lag(augment.augment_sound(sound, np.random.default_rng(seed)), sound)) <= RATE // 1000


@pytest.mark.parametrize("rt60", [0.2, 0.5, 0.9])
def test_a_room_rings_as_long_as_told_and_keeps_the_level(rt60, sound):
    click = np.zeros(2 * RATE, np.int16)
    click[1000] = 30_000
    out = degrade_sound.reverberate(click, rt60, -3.0, 0.004, np.random.default_rng(0)).astype(float)
    assert not out[:1000].any()  # nothing before its time
    assert np.abs(out).argmax() == 1000
    assert not out[1001:1064].any()
    fall = np.cumsum(np.square(out[1064:])[::-1])[::-1]  # Schroeder's backward integral
    fall = 10 * np.log10(fall / fall[0] + 1e-12)
    first, last = np.argmax(fall < -5), np.argmax(fall < -15)
    assert 6 * (last - first) / RATE == pytest.approx(rt60, rel=0.25)
    direct, echoes = np.square(out[1000]), np.square(out[1001:]).sum()
    assert 10 * np.log10(direct / echoes) == pytest.approx(-3.0, abs=0.5)
    loud = degrade_sound.reverberate(sound, rt60, 0.0, 0.004, np.random.default_rng(0))
    assert np.square(loud.astype(float)).mean() == pytest.approx(np.square(sound.astype(float)).mean(), rel=0.05)


def test_a_telephone_passes_its_band_alone():
    white = (3000 * np.random.default_rng(0).standard_normal(5 * RATE)).astype(np.int16)
    out = degrade_sound.telephone(white, 300, 3400)
    hertz, before = welch(white, RATE, nperseg=1024)
    after = welch(out, RATE, nperseg=1024)[1]
    gain = 10 * np.log10(after / before)
    assert np.abs(gain[(hertz > 500) & (hertz < 3200)]).max() < 1.5
    assert gain[hertz > 3700].max() < -30
    assert gain[(hertz > 20) & (hertz < 150)].max() < -25


def test_g711_is_the_codec_of_ffmpeg():
    import av

    every = np.arange(-32768, 32768).astype(np.int16)
    encoder, decoder = av.CodecContext.create("pcm_mulaw", "w"), av.CodecContext.create("pcm_mulaw", "r")
    for context in (encoder, decoder):
        context.sample_rate, context.layout = 8000, "mono"
    encoder.format = "s16"
    frame = av.AudioFrame.from_ndarray(every[None], format="s16", layout="mono")
    frame.sample_rate = 8000
    packets = encoder.encode(frame)
    theirs = np.concatenate([f.to_ndarray()[0] for p in packets for f in decoder.decode(p)])
    ours = degrade_sound.mu_law()[every.view(np.uint16)]
    assert np.unique(ours).tolist() == np.unique(theirs).tolist()
    # FFmpeg drops two bits before it looks for the nearest level: around the borders it takes the next one
    assert (np.abs(every.astype(int) - ours) <= np.abs(every.astype(int) - theirs)).all()
    assert (ours != theirs).mean() < 0.02


# -- where a codec is missing -----------------------------------------------------------------------------------------------


def test_a_missing_codec_is_told_and_training_goes_on(monkeypatch, caplog, sound):
    seeds = range(60)
    calm = [augment.augment_sound(sound, np.random.default_rng(seed)) for seed in seeds]
    monkeypatch.setitem(degrade_sound.ENCODERS, "mp3", "no_such_encoder")
    augment.works.cache_clear()
    degrade_sound.codec_delay.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            augment.report_missing()
        without = [augment.augment_sound(sound, np.random.default_rng(seed)) for seed in seeds]
    finally:
        monkeypatch.undo()
        augment.works.cache_clear()
        degrade_sound.codec_delay.cache_clear()
    assert ["mp3" in r.getMessage() for r in caplog.records] == [True]
    same = [np.array_equal(a, b) for a, b in zip(calm, without, strict=True)]
    assert not all(same)
    assert sum(same) > 50  # nothing but mp3 has changed


def test_a_missing_library_is_told_and_training_goes_on(monkeypatch, caplog, mouth):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setitem(sys.modules, "av", None)
    augment.works.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            augment.report_missing()
        out = [augment.augment_mouth(mouth[:3], np.random.default_rng(seed)) for seed in range(60)]
    finally:
        augment.works.cache_clear()
    assert [r.getMessage().split(" does")[0] for r in caplog.records] == ["cv2"] * 4 + ["libx264", "mp3", "aac"]
    assert {x.shape for x in out} == {(3, 96, 96)}


def test_here_no_codec_is_missing(caplog):
    with caplog.at_level(logging.WARNING):
        augment.report_missing()
    assert not caplog.records
