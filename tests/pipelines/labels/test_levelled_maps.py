"""Maps of levelled embeddings: what is taken away, and that the pieces in which long clips are mapped do not show."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.labels import projection
from store import layout
from store.similarity import Fit, level_picture, level_projection, level_sound

ON = np.uint8(layout.FACE_DETECTED | layout.AUDIO_PRESENT | layout.VOICE_ACTIVE | layout.IN_USE)


def fit(columns=6, dims=4, context=2):
    draw = np.random.default_rng(0)
    wide = columns * (2 * context + 1)
    arrays = (
        draw.normal(size=wide),
        draw.normal(size=(wide, dims)),
        draw.normal(size=columns),
        draw.normal(size=(columns, dims)),
    )
    return Fit("cca", context, *(a.astype(np.float32) for a in arrays), np.ones(dims, np.float32), level=True)


def clip(frames, columns=6, seed=0):
    draw = np.random.default_rng(seed)
    x, y = (draw.normal(size=(frames, columns)).cumsum(axis=0).astype(np.float32) for _ in "xy")
    return x, y, np.where(draw.random(frames) < 0.8, ON, np.uint8(layout.IN_USE))


def test_half_of_the_mean_of_two_seconds_is_taken_from_a_projection():
    x, _, flags = clip(200)
    seen = (flags & layout.FACE) > 0
    np.testing.assert_allclose(2 * level_projection(x, seen) - x, level_picture(x, seen), atol=1e-4)


def test_both_embeddings_and_projections_are_levelled():
    x, y, flags = clip(120)
    seen, heard = (flags & layout.FACE) > 0, (flags & layout.VOICE_ACTIVE) > 0
    level = fit()
    to_vsr, to_asr = projection.maps(level)
    plain_vsr, plain_asr = projection.maps(replace(level, level=False))
    rows = plain_vsr(level_picture(x, seen), flags)
    np.testing.assert_allclose(to_vsr(x, flags), level_projection(rows, seen), atol=1e-4)
    rows = plain_asr(level_sound(y, heard), flags)
    np.testing.assert_allclose(to_asr(y, flags), level_projection(rows, heard), atol=1e-4)


@pytest.mark.parametrize("frames", [257, 300, 385, 513])
def test_pieces_do_not_show(frames, monkeypatch):
    x, y, flags = clip(frames)
    to_vsr, to_asr = projection.maps(fit())
    whole = to_vsr(x, flags), to_asr(y, flags)
    monkeypatch.setattr(projection, "PIECE", 128)
    for part, one in zip((to_vsr(x, flags), to_asr(y, flags)), whole, strict=True):
        np.testing.assert_allclose(part, one, rtol=1e-4, atol=1e-3)
