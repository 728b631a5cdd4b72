"""Embeddings into the shared space, for every kind of fit: the linear maps of cca, the network of contrast, or both, of
embeddings that are levelled first if the fit says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from concord.arrays import large
from store import layout, similarity
from store.layout import StoreError
from store.similarity import Fit
from store.similarity.level import AROUND, Level

Rows = Callable[[np.ndarray], np.ndarray]  # embedding [frames, D] to projection [frames, K] f4
Map = Callable[[np.ndarray, np.ndarray], np.ndarray]  # the same of a whole clip with its flags u1 [frames]

# Frames that are mapped at once, five minutes: with its context each frame takes ten times the memory.
PIECE = 7_500
REACH = 8  # frames on each side that a row may depend on: a fit's context is 4, the network's 5


def maps(fit: Fit) -> tuple[Map, Map]:
    """The map of the lips' embedding and that of the sound's. Raises StoreError if the fit's network cannot be used."""
    vsr, asr = _maps(fit)
    reach = max(REACH, fit.context)
    return partial(_picture, vsr, fit.level, reach), partial(_sound, asr, fit.level, reach)


def levelled(embeddings: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a whole clip with its embeddings `vsr` and `asr` levelled, f4, by its `flags`."""
    found, flags = dict(embeddings), embeddings["flags"]
    if "vsr" in found:
        found["vsr"] = similarity.level_picture(found["vsr"], (flags & layout.FACE) > 0)
    if "asr" in found:
        found["asr"] = similarity.level_sound(found["asr"], (flags & layout.VOICE_ACTIVE) > 0)
    return found


def _picture(maps: Sequence[Rows], level: bool, reach: int, x: np.ndarray, flags: np.ndarray) -> np.ndarray:
    if not level:
        return _in_pieces(lambda part: _beside([rows(x[part]) for rows in maps]), reach, len(x))
    seen = (flags & layout.FACE) > 0
    return _in_pieces(
        lambda part: _levelled_rows(maps, similarity.level_picture(x[part], seen[part]), seen[part]),
        reach + 4 * AROUND,
        len(x),
    )


def _sound(maps: Sequence[Rows], level: bool, reach: int, y: np.ndarray, flags: np.ndarray) -> np.ndarray:
    if not level:
        return _in_pieces(lambda part: _beside([rows(y[part]) for rows in maps]), reach, len(y))
    heard = (flags & layout.VOICE_ACTIVE) > 0
    own = Level.of(y, heard)
    return _in_pieces(lambda part: _levelled_rows(maps, own(y[part]), heard[part]), reach + 4 * AROUND, len(y))


def _levelled_rows(maps: Sequence[Rows], x: np.ndarray, known: np.ndarray) -> np.ndarray:
    return _beside([similarity.level_projection(rows(x), known) for rows in maps])


def _in_pieces(whole: Callable[[slice], np.ndarray], reach: int, frames: int) -> np.ndarray:
    """The map of an embedding of any length, PIECE frames at a time, each with `reach` more on both sides."""
    if frames <= PIECE:
        return whole(slice(0, frames))
    found = np.zeros((0, 0), np.float32)
    for start in range(0, frames, PIECE):
        first = max(start - reach, 0)
        rows = whole(slice(first, start + PIECE + reach))[start - first :][:PIECE]
        if not start:
            found = large.zeros((frames, *rows.shape[1:]), rows.dtype)
        found[start : start + len(rows)] = rows
    return found


def _maps(fit: Fit) -> tuple[list[Rows], list[Rows]]:
    """The maps of each side, whose rows stand beside each other."""
    linear = partial(similarity.project_vsr, fit=fit), partial(similarity.project_asr, fit=fit)
    if not fit.network:
        return [linear[0]], [linear[1]]
    from teachers.projector import Projector

    try:
        network = Projector(fit.network)
    except ValueError as error:
        raise StoreError(f"{error}; use another fit, or learn it again with precompute.py --refit") from error
    columns = [network.dims + (m.shape[1] if fit.kind == "fused" else 0) for m in (fit.vsr_matrix, fit.asr_matrix)]
    if columns != [fit.dims, fit.dims]:
        raise StoreError(
            f"the fit is damaged: its maps have {columns[0]} and {columns[1]} columns, its weights {fit.dims}; use another "
            "fit, or learn it again with precompute.py --refit"
        )
    if fit.kind == "contrast":
        return [network.vsr], [network.asr]
    return [linear[0], network.vsr], [linear[1], network.asr]


def fuse(cca: Fit, network: dict[str, np.ndarray], dims: int) -> Fit:
    """The fused fit of a cca and a network of `dims` columns: the canonical correlations go into the matrices."""
    weight = np.sqrt(cca.correlations)
    return Fit(
        "fused",
        cca.context,
        cca.vsr_mean,
        (cca.vsr_matrix * weight).astype(np.float32),
        cca.asr_mean,
        (cca.asr_matrix * weight).astype(np.float32),
        np.ones(cca.dims + dims, np.float32),
        network=network,
        level=cca.level,
    )


def _beside(parts: Sequence[np.ndarray]) -> np.ndarray:
    """A projection as it is, or several beside each other, each of length 1: the cosine of two such rows is the mean of
    their cosines."""
    if len(parts) == 1:
        return parts[0]
    lengths = [np.linalg.norm(rows, axis=1, keepdims=True) for rows in parts]
    return np.concatenate([rows / np.maximum(n, 1e-12) for rows, n in zip(parts, lengths, strict=True)], axis=1)


def half(x: np.ndarray) -> np.ndarray:
    """Values as f2, as stored, clipped to its range: an embedding far outside the fitted ones must not become
    infinite."""
    limit = float(np.finfo(np.float16).max)
    found = large.zeros(x.shape, np.float16)
    for k in range(0, len(x), PIECE):
        found[k : k + PIECE] = np.clip(x[k : k + PIECE], -limit, limit)
    return found
