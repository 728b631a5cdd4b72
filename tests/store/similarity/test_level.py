"""Embeddings without what stays the same in a clip."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.similarity import Fit, level_picture, level_sound, unlearned
from store.similarity.level import AROUND, TINY, Level


def rows(frames, columns=3, seed=0):
    return np.random.default_rng(seed).normal(size=(frames, columns)).astype(np.float32)


@given(st.integers(1, 130), st.integers(0, 99))
def test_the_mean_of_two_seconds_around_each_frame_is_taken_away(frames, seed):
    x = rows(frames, seed=seed)
    seen = np.random.default_rng(seed).random(frames) < 0.7
    found = level_picture(x, seen)
    for k in range(frames):
        width = min(2 * AROUND + 1, frames)
        first = min(max(k - AROUND, 0), frames - width)
        around = x[first : first + width][seen[first : first + width]]
        mean = around.mean(axis=0) if len(around) else 0
        np.testing.assert_allclose(found[k], x[k] - mean, atol=1e-5)


@given(st.integers(20, 60), st.floats(-50, 50), st.floats(0.5, 20))
def test_sound_is_the_same_for_another_voice_level_and_scale(frames, offset, scale):
    y = rows(frames)
    heard = np.arange(frames) % 3 > 0
    np.testing.assert_allclose(level_sound(y * scale + offset, heard), level_sound(y, heard), rtol=2e-2, atol=2e-2)


def test_sound_with_little_voice_is_levelled_by_all_of_it():
    y = rows(40)
    for voiced in (0, 1, 9):
        np.testing.assert_array_equal(level_sound(y, np.arange(40) < voiced), level_sound(y, np.ones(40, bool)))


def test_a_constant_column_stays_small_and_finite():
    y = np.concatenate([rows(40), np.full((40, 1), 7.0, np.float32)], axis=1)
    found = level_sound(y, np.ones(40, bool))
    assert np.isfinite(found).all()
    assert np.abs(found[:, 3]).max() < 1e-3
    assert np.isfinite(level_sound(np.zeros((5, 2), np.float32), np.ones(5, bool))).all()


def test_statistics_of_long_clips_are_those_of_the_whole(monkeypatch):
    y, heard = rows(1000), np.random.default_rng(1).random(1000) < 0.5
    whole = Level.of(y, heard)
    monkeypatch.setattr("store.similarity.level.ROWS", 64)
    parts = Level.of(y, heard)
    np.testing.assert_allclose(parts.mean, whole.mean, atol=1e-9)
    np.testing.assert_allclose(parts.deviation, whole.deviation, atol=1e-9)
    assert (whole.deviation > TINY).all()


def test_a_fit_says_whether_it_is_level():
    fit = unlearned("cosine", 4)
    assert "level" not in fit.to_arrays()["attrs"]
    tree = fit.to_arrays()
    tree["attrs"] = {**tree["attrs"], "level": True}
    assert Fit.from_arrays(tree).level
    tree["attrs"]["level"] = "yes"
    with pytest.raises(ValueError, match="level"):
        Fit.from_arrays(tree)
