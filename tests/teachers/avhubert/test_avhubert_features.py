"""Filterbanks and mouth crops against those of the published data set, and their properties."""

import numpy as np
import pytest

from teachers.avhubert import features

CLIPS = ["random", "tone440", "silence", "odd", "tiny", "fullscale"]


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden" / "audio_features.npz") as file:
        return dict(file)


@pytest.mark.golden
def test_filterbank_is_the_published_one(golden):
    np.testing.assert_allclose(features.filterbank(), golden["fft_filterbank_26x257"], atol=1e-12)


@pytest.mark.golden
@pytest.mark.parametrize("clip", CLIPS)
def test_sound_equals_the_published_features(golden, clip):
    samples = golden[f"{clip}/wav_i16"]
    rows = features.log_filterbank(samples)
    np.testing.assert_allclose(rows, golden[f"{clip}/logfbank26"], atol=1e-5, rtol=0)
    stacked = features.stack(rows)
    np.testing.assert_allclose(stacked, golden[f"{clip}/stacked104"], atol=1e-5, rtol=0)
    lengths = [int(name.split("/")[1][1:]) for name in golden if name.startswith(f"{clip}/T") and "aligned" in name]
    assert lengths
    for frames in lengths:
        expected = golden[f"{clip}/T{frames}/aligned104"]
        np.testing.assert_allclose(features.fit(stacked, frames), expected, atol=1e-5, rtol=0)
        expected = golden[f"{clip}/T{frames}/audio_source"]
        np.testing.assert_allclose(features.sound(samples, frames), expected, atol=1e-5, rtol=0)


@pytest.mark.golden
@pytest.mark.parametrize("case", range(3))
def test_picture_equals_the_published_transform(shared, case):
    with np.load(shared / "golden" / "avhubert_features.npz") as golden:
        given, expected = golden[f"preprocess/{case}/frames_u8"], golden[f"preprocess/{case}/out_f32"]
    np.testing.assert_allclose(features.picture(given), expected, rtol=2e-7)


def test_a_row_sees_its_own_forty_milliseconds():
    samples = np.random.default_rng(0).normal(0, 3000, 640 * 30).astype(np.int16)
    changed = samples.copy()
    changed[640 * 10 : 640 * 11] //= 2
    different = (features.sound(samples, 30) != features.sound(changed, 30)).any(axis=1)
    assert np.flatnonzero(different).tolist() == [
        9,
        10,
        11,
    ]  # a window is 25 ms, and each sample is compared with the last


def test_rows_are_normalised_and_those_beyond_the_sound_are_zero():
    samples = np.random.default_rng(0).normal(0, 3000, 6400).astype(np.int16)
    rows = features.sound(samples, 14)
    assert not rows[10:].any()
    np.testing.assert_allclose(rows[:10].mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(rows[:10].std(axis=1), 1, atol=1e-4)
    raw = features.sound(samples, 14, normalize=False)
    np.testing.assert_array_equal(features.layer_norm(raw), rows)


@pytest.mark.parametrize(("samples", "count"), [(1, 1), (399, 1), (400, 1), (401, 2), (560, 2), (561, 3), (720, 3)])
def test_the_last_window_is_filled_with_zeros(samples, count):
    wave = np.full(samples, 1000, np.int16)
    wave[-1] = 0  # else zeros that come before the pre-emphasis are a step
    rows = features.log_filterbank(wave)
    assert rows.shape == (count, 26)
    np.testing.assert_array_equal(rows, features.log_filterbank(np.pad(wave, (0, 240 + 160 * count - samples))))


def test_the_crop_is_central():
    frames = np.zeros((1, 96, 112), np.uint8)
    frames[0, 4:92, 12:100] = 255
    assert (features.picture(frames) == np.float32((1 - 0.421) / 0.165)).all()
    assert features.picture(frames, size=80, mean=0.0, deviation=1.0).shape == (1, 80, 80)
