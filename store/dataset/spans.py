"""Which frames of a clip are used, in training and evaluation alike, so that lengths and silences cannot reveal the
label.

In many corpora the length of picture and sound, or the silence before the first word, shows which clips are fake
(`pipelines.audit`). So only frames inside both tracks are used, MARGIN away from their ends, and `trim` removes more:

none     nothing more
leading  everything before the first frame with a voice
speech   that, and everything after the last one

What remains is a clip's span; a clip whose picture stands still throughout has none. Training cuts windows of one length
from spans, whatever their own length (`window_for`), so that neither length nor padding depends on the clip.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from store.layout import AUDIO_PRESENT, FACE_DETECTED, VOICE_ACTIVE, StoreError, evident

if TYPE_CHECKING:
    from store.reader import Reader

TRIMS = ("none", "leading", "speech")
MARGIN = 3  # frames: encoders fade in, pad and prime at the ends
SHORTEST = 15  # frames: the shortest window of which a third is a shift that counts as fake
READ = ("flags", "fake")  # arrays of frames/
FEW = 0.05  # share of the clips of a method that may be too short for a window


@dataclass(frozen=True)
class Spans:
    """First frame and number of frames of the span of every clip of a store, i8 [clips]; 0 frames if nothing remains.

    `labels`: a hash of the flags and frame labels that were read.
    """

    start: np.ndarray
    length: np.ndarray
    labels: str = ""


def spans(reader: Reader, rows: np.ndarray, trim: str) -> Spans:
    """Spans of the clips `rows`, which must be done; other clips have none. Reads the arrays READ, a shard at a time.

    Raises StoreError if flags are damaged, ValueError for an unknown `trim`.
    """
    if trim not in TRIMS:
        raise ValueError(f"trim must be one of {', '.join(TRIMS)}, not {trim}")
    start, length = np.zeros((2, len(reader)), np.int64)
    seen = hashlib.sha256()
    for piece in _pieces(reader, np.asarray(rows, np.int64)):
        for row, read in zip(piece.tolist(), _read(reader, piece), strict=True):
            first, last = span(read["flags"], trim)
            start[row], length[row] = first, last - first
            for name in READ:
                seen.update(np.ascontiguousarray(read[name]).tobytes())
    return Spans(start, length, seen.hexdigest()[:16])


def _pieces(reader: Reader, rows: np.ndarray) -> list[np.ndarray]:
    """The clips in their order, split where another shard begins or the position in the store decreases: each piece is
    one read."""
    offset = np.asarray(reader.clips["offset"], np.int64)[rows]
    cuts = np.flatnonzero((np.diff(offset // reader.shard_rows) != 0) | (np.diff(offset) <= 0)) + 1
    return np.split(rows, cuts) if len(rows) else []


def _read(reader: Reader, piece: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    """The arrays READ, clip by clip, from one read of all rows from the first clip to the end of the last.

    If that read fails, each clip is read alone: damage to other clips between them does not matter, and the error for a
    damaged clip names it.
    """
    offset, length, done = (
        np.asarray(reader.clips[name])[piece].astype(np.int64) for name in ("offset", "length", "done")
    )
    first, last = int(offset[0]), int((offset + length).max())
    whole = None
    if first >= 0 and done.all():
        with contextlib.suppress(StoreError):
            whole = reader.rows(first, last, READ)
    for row, begin, frames in zip(piece.tolist(), (offset - first).tolist(), length.tolist(), strict=True):
        if whole is None:
            yield reader.frames(row, 0, frames, READ)
        else:
            yield {name: values[begin : begin + frames] for name, values in whole.items()}


def span(flags: np.ndarray, trim: str) -> tuple[int, int]:
    """First and last (exclusive) frame of the span of one clip with these flags u1 [frames]; (0, 0) if nothing
    remains."""
    if (flags & FACE_DETECTED).any() and not evident(flags).any():
        return 0, 0
    first, last = _ends(flags & AUDIO_PRESENT > 0)
    # the span ends with the picture or the sound, whichever ends first, minus the margin
    first, last = first + MARGIN, last - MARGIN
    if trim != "none":
        begin, end = _ends(flags & VOICE_ACTIVE > 0)
        first = max(first, begin)
        last = min(last, end) if trim == "speech" or begin == end else last
    return (first, last) if first < last else (0, 0)


def _ends(on: np.ndarray) -> tuple[int, int]:
    """First True position and the one after the last; (0, 0) if there is none."""
    places = np.flatnonzero(on)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)


def window_for(length: np.ndarray, kind: np.ndarray, wanted: int) -> int:
    """Window in frames, at most `wanted`, for which nearly all clips of every kind are long enough; length i8 [clips],
    kind [clips].

    A share FEW of a kind may be shorter, but the window never falls below SHORTEST for a kind of short clips. All
    windows have one length, so that lengths reveal nothing; shorter clips are not used.
    """
    shortest = [np.quantile(length[kind == name], FEW, method="lower") for name in np.unique(kind)]
    return min(wanted, max(SHORTEST, int(min(shortest, default=wanted))))
