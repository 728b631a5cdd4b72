"""Runs a network that sees one window at a time on clips of any length, in batches.

A clip longer than `window` frames is cut into windows that overlap by `overlap` frames, the last one ending with the
clip. Rows are joined at the middle of each overlap, so every row has at least overlap // 2 frames of context on each
side, except at the clip's ends. Memory is that of one batch and of the rows. On the CPU only windows of the same length
share a batch, because padding gains nothing there and changes the rounding (1e-5). Elsewhere windows of similar lengths
are padded together, and the network must mask the padding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from concord.arrays import large
from concord.frames import SAMPLES_PER_FRAME
from teachers.base import ClipMedia, TeacherError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

BATCH_FRAMES = 1000  # frames in one pass, padding included
PART = 4096  # rows that are checked at once


@dataclass(frozen=True)
class Piece:
    """Frames [start, stop) of a clip, which the network sees together; rows [first, last) are taken from it."""

    index: int  # of the clip in the list
    clip: ClipMedia
    start: int
    stop: int
    first: int
    last: int

    @property
    def num_frames(self) -> int:
        return self.stop - self.start

    @property
    def audio(self) -> np.ndarray:
        """i2 [640 * num_frames]."""
        return self.clip.audio[self.start * SAMPLES_PER_FRAME : self.stop * SAMPLES_PER_FRAME]

    @property
    def mouth(self) -> np.ndarray:
        """u1 [num_frames, height, width]."""
        return self.clip.mouth[self.start : self.stop]


# (pieces of a batch, in half precision or not) -> f4 [num_frames, dim] for each
Forward = Callable[[list[Piece], bool], list[np.ndarray]]


def embed(
    name: str,
    clips: list[ClipMedia],
    dim: int,
    forward: Forward,
    device: torch.device,
    *,
    window: int,
    overlap: int,
    batch_frames: int = BATCH_FRAMES,
) -> list[np.ndarray]:
    """f4 [frames, dim] for each clip, by `forward` on batches of pieces; `device` is the torch device it computes on.

    On CUDA it computes in half precision, and again in single precision if a batch then holds a value that is not
    finite. Raises TeacherError, which names the clip, if rows are still not finite or the sound does not match the
    frames.
    """
    import torch

    half = device.type == "cuda"
    rows = [large.zeros((clip.num_frames, dim), np.float32) for clip in clips]
    pieces = [piece for i, clip in enumerate(clips) for piece in cut(i, clip, window, overlap)]
    pieces.sort(key=lambda piece: -piece.num_frames)  # similar lengths together: little padding
    with torch.inference_mode():
        for batch in batches(pieces, batch_frames, padded=half):
            found = forward(batch, half)
            if half and not all(np.isfinite(x).all() for x in found):
                log.warning("%s: half precision overflowed; this batch is computed in single precision", name)
                found = forward(batch, False)
            for piece, x in zip(batch, found, strict=True):
                rows[piece.index][piece.first : piece.last] = x[piece.first - piece.start : piece.last - piece.start]
    for clip, row in zip(clips, rows, strict=True):
        if not all(np.isfinite(row[k : k + PART]).all() for k in range(0, len(row), PART)):
            raise TeacherError(f"clip {clip.id}: {name} gave values that are not finite")
    return rows


def cut(index: int, clip: ClipMedia, window: int, overlap: int) -> list[Piece]:
    """Pieces of one clip; the last one ends with the clip and is whole, so it may overlap more."""
    frames = clip.num_frames
    if len(clip.audio) != frames * SAMPLES_PER_FRAME:
        raise TeacherError(
            f"clip {clip.id}: {len(clip.audio)} samples of sound for {frames} frames; expected {frames * SAMPLES_PER_FRAME}"
        )
    if frames == 0:
        return []
    starts = [0]
    while starts[-1] + window < frames:
        starts.append(min(starts[-1] + window - overlap, frames - window))
    joins = [0, *((a + window + b) // 2 for a, b in pairwise(starts)), frames]
    return [
        Piece(index, clip, start, min(start + window, frames), first, last)
        for start, first, last in zip(starts, joins[:-1], joins[1:], strict=True)
    ]


def batches(pieces: list[Piece], batch_frames: int, padded: bool) -> list[list[Piece]]:
    """Pieces, longest first, in groups of at most `batch_frames` frames; without `padded`, each group has one
    length."""
    groups: list[list[Piece]] = []
    for piece in pieces:
        longest = groups[-1][0].num_frames if groups else 0
        full = (len(groups[-1]) + 1) * longest > batch_frames if groups else True
        if full or (not padded and piece.num_frames < longest):
            groups.append([])
        groups[-1].append(piece)
    return groups
