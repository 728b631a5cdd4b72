"""Which frames of a clip are used, in training and evaluation alike: so that lengths and silences cannot tell the label.

Corpora give fakes away by how long picture and sound are, and by silence before the first word (`pipelines.audit`). So only
frames inside both tracks are read, MARGIN away from their ends, and `trim` takes off more:

none     nothing more
leading  what comes before the first frame with a voice
speech   that, and what comes after the last one

What remains is a clip's span. Training cuts windows of one length from spans, whatever their own length (`window_for`), so
that no length and no padding depends on the clip.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from store import Reader
from store.layout import AUDIO_PRESENT, VOICE_ACTIVE
from student.config import TRIMS

MARGIN = 3  # frames: encoders fade in, pad and prime at the ends
SECOND = 25  # frames
FEW = 0.05  # share of the clips of a method that may be too short for a window


@dataclass(frozen=True)
class Spans:
    """First frame and number of frames of the span of every clip of a store, i8 [clips]; 0 frames where nothing remains.

    `labels`: a hash of what was read of the clips, flags and frame labels.
    """

    start: np.ndarray
    length: np.ndarray
    labels: str = ""


def spans(reader: Reader, rows: np.ndarray, trim: str) -> Spans:
    """Spans of the clips `rows`, which must be done; other clips have none. Reads `frames/flags` and `frames/fake`.

    Raises StoreError where flags are damaged, ValueError for an unknown `trim`.
    """
    if trim not in TRIMS:
        raise ValueError(f"trim must be one of {', '.join(TRIMS)}, not {trim}")
    start, length = np.zeros((2, len(reader)), np.int64)
    seen = hashlib.sha256()
    for row in np.asarray(rows, np.int64).tolist():
        read = reader.frames(row, 0, int(reader.clips["length"][row]), ["flags", "fake"])
        first, last = span(read["flags"], trim)
        start[row], length[row] = first, last - first
        for name in ("flags", "fake"):
            seen.update(np.ascontiguousarray(read[name]).tobytes())
    return Spans(start, length, seen.hexdigest()[:16])


def span(flags: np.ndarray, trim: str) -> tuple[int, int]:
    """First and last (exclusive) frame of the span of one clip with these flags u1 [frames]; (0, 0) where nothing remains."""
    first, last = _ends(flags & AUDIO_PRESENT > 0)
    # one that ends with the picture, or with the sound: the margin is kept to whichever ends first
    first, last = first + MARGIN, last - MARGIN
    if trim != "none":
        begin, end = _ends(flags & VOICE_ACTIVE > 0)
        first = max(first, begin)
        last = min(last, end) if trim == "speech" or begin == end else last
    return (first, last) if first < last else (0, 0)


def _ends(on: np.ndarray) -> tuple[int, int]:
    """First true place and the one after the last; (0, 0) where none is."""
    places = np.flatnonzero(on)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)


def window_for(length: np.ndarray, kind: np.ndarray, wanted: int) -> int:
    """Window in frames, at most `wanted`, that nearly all clips of every kind can fill; length i8 [clips], kind [clips].

    As many as FEW of a kind may be shorter, but it does not go below a second for a kind of short clips. Windows of one length
    for all are what keeps lengths from telling: clips that are shorter take no part.
    """
    shortest = [np.quantile(length[kind == name], FEW, method="lower") for name in np.unique(kind)]
    return min(wanted, max(SECOND, int(min(shortest, default=wanted))))
