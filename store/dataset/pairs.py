"""Pairs of lips and sound, and the labels of their frames; the trainer and the public dataset use the same rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from store.layout import FAKE, LABELS, StoreError

if TYPE_CHECKING:
    from store.reader import Reader

# Windows: a partner is stored nearby, so its chunks are needed soon anyway, and is often the same speaker.
NEIGHBOURS = 512
TRIES = 4


def partners(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Clips whose sound may be swapped in: `rows`, each once for each of its `counts` windows, sorted, so that swapped sound
    has the same distribution of positions as own sound."""
    return np.sort(np.repeat(rows, counts))


def partner(real: np.ndarray, row: int, rng: np.random.Generator) -> int:
    """Another clip than `row` out of `partners`, stored near it; -1 where none was found."""
    found = -1
    for _ in range(TRIES if len(real) > 1 else 0):
        near = int(np.searchsorted(real, row) + rng.integers(-NEIGHBOURS, NEIGHBOURS + 1))
        found = int(real[near % len(real)])
        if found != row:
            break
    return -1 if found == row else found


def start_in_partner(start: int, first: int, room: int, aligned: bool, place: float) -> int:
    """First frame of the sound in a partner that has room for `room` more starts than `first`.

    With `aligned` the sound keeps the position `start` of the lips, if the partner reaches it: scripted corpora share a rhythm,
    which must not reveal swaps. Otherwise `place` in [0, 1) chooses.
    """
    return start if aligned and first <= start <= first + room else first + int(place * (room + 1))


def labels(reader: Reader, row: int, label: int, start: int, fake: np.ndarray) -> tuple[int, np.ndarray]:
    """Label of a window with its own sound, and of its frames i1 [frames]: 0 real, 1 fake, -1 unknown.

    `label` is the clip's, `fake` its `frames/fake` from frame `start` on. A partial forgery is real in its real frames. Raises
    StoreError for a value that is none of the three.
    """
    odd = np.flatnonzero(~np.isin(fake, LABELS))
    if len(odd):
        raise StoreError(
            f"clip {reader.clips['id'][row]}: frames/fake is {fake[odd[0]]} at frame {start + odd[0]}, not 0, 1 or -1; "
            "correct the store"
        )
    if label == FAKE and (fake >= 0).all():
        return int(fake.any()), fake
    return label, np.full(len(fake), label, np.int8) if label < FAKE else fake


def check_labels(reader: Reader, rows: np.ndarray) -> None:
    """Raises StoreError for the first of the clips whose label is none of 0, 1 and -1."""
    odd = rows[~np.isin(np.asarray(reader.clips["label"])[rows], LABELS)]
    if len(odd):
        raise StoreError(
            f"clip {reader.clips['id'][odd[0]]}: its label is {reader.clips['label'][odd[0]]}, not 0 (real), 1 (fake) or -1 "
            "(unknown); correct the store"
        )


def finite(reader: Reader, name: str, row: int, start: int, x: np.ndarray) -> np.ndarray:
    """Frames [frames, ...] of an array of clip `row` from `start` on as f4. Raises StoreError for a value that is not finite:
    one would turn every weight into NaN."""
    odd = np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(1))
    if len(odd):
        raise StoreError(
            f"clip {reader.clips['id'][row]}: frames/{name} is not finite at frame {start + odd[0]}, so it has no "
            f"soft label there; precompute.py --store {reader.path} --refit rewrites it"
        )
    return x.astype(np.float32)


def padded(x: np.ndarray, length: int, fill: float = 0) -> np.ndarray:
    """x [n, ...], padded with `fill` to [length, ...]."""
    if len(x) == length:
        return x
    out = np.full((length, *x.shape[1:]), fill, x.dtype)
    out[: len(x)] = x
    return out
