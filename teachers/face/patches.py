"""Crops for a face track that is known only after all frames were read, without keeping the frames in memory.

While frames are streamed, pieces around the future crops are kept, within a budget of bytes. Crops whose piece is
missing or too small are made in a second pass over the frames, with the same bytes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


class Patches:
    """Pieces of frames around one part of every face, within a budget of bytes."""

    def __init__(self, budget: int, region: Callable[[Any], tuple[float, float, float]], grey: bool = False) -> None:
        """`region` gives centre (x, y) and reach, in pixels, of the piece to keep for a face; `grey` pieces need a
        third of the bytes."""
        self.left, self.region, self.grey = budget, region, grey
        self.kept: dict[int, list[tuple[int, int, np.ndarray]]] = {}

    def add(self, frame: int, image: np.ndarray, faces: Iterable[Any]) -> None:
        """Keep the pieces of one frame u1 [height, width, 3] (RGB), as far as the budget allows."""
        for face in faces:
            across, down, reach = self.region(face)
            x, y = max(int(across - reach), 0), max(int(down - reach), 0)
            piece = image[y : max(int(down + reach) + 1, 0), x : max(int(across + reach) + 1, 0)]
            size = piece.nbytes // 3 if self.grey else piece.nbytes
            if size <= self.left:
                self.left -= size
                self.kept.setdefault(frame, []).append((x, y, _grey(piece) if self.grey else piece.copy()))

    def again(self, frame: int) -> None:
        """The frame has the same picture and faces as the one before it, so both share their pieces."""
        if frame - 1 in self.kept:
            self.kept[frame] = self.kept[frame - 1]

    def find(self, frame: int, extent: np.ndarray, shape: tuple[int, int]) -> tuple[int, int, np.ndarray] | None:
        """A piece of this frame that covers extent (left, top, right, bottom) as far as it lies in the picture."""
        left, top = max(int(extent[0]), 0), max(int(extent[1]), 0)
        right, bottom = min(int(extent[2]), shape[1]), min(int(extent[3]), shape[0])
        for x, y, piece in self.kept.get(frame, []):
            if x <= left and y <= top and right <= x + piece.shape[1] and bottom <= y + piece.shape[0]:
                return x, y, piece
        return None


@dataclass(frozen=True)
class Crops:
    """Crops to make of the frames marked in `faced`, bool [frames]: written to `out` [frames, ...] by
    `crop(image, source[k], origin, extents[k])`, from a frame or from a piece of it that begins at `origin` (x, y)."""

    patches: Patches
    faced: np.ndarray
    out: np.ndarray
    source: np.ndarray
    extents: np.ndarray  # (left, top, right, bottom) of what a crop reads, i8 [frames, 4]
    crop: Callable[[np.ndarray, np.ndarray, tuple[int, int], np.ndarray], np.ndarray]

    def make(self, k: int, image: np.ndarray, origin: tuple[int, int] = (0, 0)) -> None:
        """The crop of frame k."""
        self.out[k] = self.crop(image, self.source[k], origin, self.extents[k])


def make(
    frames: Iterable[np.ndarray],
    wanted: Sequence[Crops],
    shapes: Sequence[tuple[int, tuple[int, int]]],
    stays: np.ndarray,
) -> None:
    """Make all crops. `shapes` are height and width of the frames, each with the first frame that has them. `stays`,
    bool [frames], marks frames with the same picture as the one before; an equal crop is copied.

    Reads the frames again only if a piece is missing or too small. RuntimeError if there are fewer frames than before.
    """
    missing: dict[int, list[Crops]] = {}
    copies: list[tuple[Crops, np.ndarray]] = []
    ends = [*(first for first, _ in shapes[1:]), len(stays)]
    for crops in wanted:
        faced, same = crops.faced, np.zeros(len(stays), bool)
        same[1:] = (
            stays[1:]
            & faced[1:]
            & faced[:-1]
            & (crops.source[1:] == crops.source[:-1]).reshape(len(stays) - 1, -1).all(axis=1)
        )
        copies.append((crops, np.flatnonzero(same)))
        for (first, shape), end in zip(shapes, ends, strict=True):
            for k in (first + np.flatnonzero((faced & ~same)[first:end])).tolist():
                piece = crops.patches.find(k, crops.extents[k], shape)
                if piece is None:
                    missing.setdefault(k, []).append(crops)
                else:
                    crops.make(k, piece[2], piece[:2])
    if missing:
        for k, frame in enumerate(frames):
            for crops in missing.pop(k, ()):
                crops.make(k, frame)
            if not missing:
                break
    if missing:
        raise RuntimeError(f"fewer frames came in the second pass: {len(missing)} of {len(stays)} are missing")
    for crops, rows in copies:
        for k in rows.tolist():  # in order: one picture may last for many frames
            crops.out[k] = crops.out[k - 1]


def _grey(piece: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.cvtColor(np.ascontiguousarray(piece), cv2.COLOR_RGB2GRAY) if piece.size else piece[..., 0].copy()
