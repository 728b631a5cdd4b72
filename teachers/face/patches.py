"""Crops for a face track that is known only after all frames were read, without keeping the frames in memory.

While frames are streamed, pieces around the future crops are kept, within a budget of bytes. Crops whose piece is
missing or too small are made in a second pass over the frames, with the same bytes. Where one face is followed, crops
are also made early, as soon as the frames after them are known, and their pieces are dropped: so a long clip needs neither
memory for pieces nor a second pass. An early crop counts only if its place turns out to be the final one, to the bit.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from concord.arrays.large import Shelf

Shape = tuple[int, tuple[int, int]]  # a frame, and height and width from there on


class Patches:
    """Pieces of frames around one part of every face, within a budget of bytes."""

    def __init__(self, budget: int, region: Callable[[Any], tuple[float, float, float]], grey: bool = False) -> None:
        """`region` gives centre (x, y) and reach, in pixels, of the piece to keep for a face; `grey` pieces need a
        third of the bytes."""
        self.budget = self.left = budget
        self.region, self.grey = region, grey
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

    @property
    def used(self) -> int:
        """Bytes of the pieces that are kept."""
        return self.budget - self.left

    def drop(self, stop: int) -> None:
        """Drop the pieces of frames before `stop`."""
        for frame in [frame for frame in self.kept if frame < stop]:
            pieces = self.kept.pop(frame)
            if self.kept.get(frame + 1) is not pieces:
                self.left += sum(piece.nbytes for _, _, piece in pieces)

    def find(self, frame: int, extent: np.ndarray, shape: tuple[int, int]) -> tuple[int, int, np.ndarray] | None:
        """A piece of this frame that covers extent (left, top, right, bottom) as far as it lies in the picture."""
        left, top = max(int(extent[0]), 0), max(int(extent[1]), 0)
        right, bottom = min(int(extent[2]), shape[1]), min(int(extent[3]), shape[0])
        for x, y, piece in self.kept.get(frame, []):
            if x <= left and y <= top and right <= x + piece.shape[1] and bottom <= y + piece.shape[0]:
                return x, y, piece
        return None


@dataclass(frozen=True)
class Early:
    """Crops of some frames from `start` on, made early for these sources; `out` gives them."""

    start: int
    faced: np.ndarray  # bool [some]: which were made
    source: np.ndarray
    out: Callable[[], np.ndarray]


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
    early: list[Early] = field(default_factory=list)

    def take_early(self) -> np.ndarray:
        """Take over early crops; returns the frames that are done, bool [frames]."""
        done = np.zeros(len(self.out), bool)
        while self.early:
            one = self.early.pop(0)
            rows = slice(one.start, one.start + len(one.faced))
            right = one.faced & (one.source == self.source[rows]).reshape(len(one.faced), -1).all(axis=1)
            self.out[rows][right] = one.out()[right]
            done[rows] |= right
        return done

    def ahead(self, origin: int, start: int, stop: int, shapes: Sequence[Shape], shelf: Shelf) -> Early:
        """The crops of frames start to stop from their pieces, which wait on `shelf`; the arrays here begin at frame
        `origin`."""
        made = np.zeros(stop - start, bool)
        out = np.zeros((stop - start, *self.out.shape[1:]), self.out.dtype)
        for k in (start + np.flatnonzero(self.faced[start - origin : stop - origin])).tolist():
            shape = next(shape for first, shape in reversed(shapes) if first <= k)
            piece = self.patches.find(k, self.extents[k - origin], shape)
            if piece is not None:
                made[k - start] = True
                out[k - start] = self.crop(piece[2], self.source[k - origin], piece[:2], self.extents[k - origin])
        return Early(start, made, self.source[start - origin : stop - origin].copy(), shelf.put(out))

    def make(self, k: int, image: np.ndarray, origin: tuple[int, int] = (0, 0)) -> None:
        """The crop of frame k."""
        self.out[k] = self.crop(image, self.source[k], origin, self.extents[k])


def make(
    frames: Iterable[np.ndarray],
    wanted: Sequence[Crops],
    shapes: Sequence[Shape],
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
        same &= ~(done := crops.take_early())
        copies.append((crops, np.flatnonzero(same)))
        for (first, shape), end in zip(shapes, ends, strict=True):
            for k in (first + np.flatnonzero((faced & ~same & ~done)[first:end])).tolist():
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
