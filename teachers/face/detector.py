"""Decodes the face detector's raw output into faces (boxes and eyes), and searches a picture for small faces by tiles.

A single-shot detector has 896 anchors (a 16 x 16 grid with two each, an 8 x 8 grid with six). For each it gives the
position of a face's box and of six key points, and a score. Boxes that overlap are averaged, weighted by their scores.
The constants are from MediaPipe's face_detector graph (Apache-2.0) and "BlazeFace" (arXiv 1907.05047); no code was
copied.

The detector sees the whole picture in 128 x 128 pixels, and finds faces from 15 % of its longer side (measured: 100 %
of faces at 20 %, 93 % at 14 %, none at 8 %). `search` shows it overlapping squares of the picture instead, of two
sizes: it finds faces from 1.5 % of the longer side, if they have about 20 pixels. It costs up to some 170 runs of the
detector, so it is only for pictures in which the first look finds nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from teachers.face.networks import DETECTOR_SIDE

MIN_SCORE = 0.5
TILES = 3.2, 10  # sides of the squares that a picture is searched by: its longer side, divided by this
LEAST_TILE = DETECTOR_SIDE  # pixels: a smaller one would only be enlarged
STEP = 0.55  # from one square to the next, in sides: a face that the next larger square misses lies whole in one
FLAT = 2.0  # grey levels, standard deviation: a square with less holds nothing
EVERY, SELDOM, LONG = 12, 50, 100  # frames between searches while no face is found; seldom after so many frames
SAME_SPOT = 0.3  # intersection over union from which two squares have found the same face


def _anchors() -> np.ndarray:
    """Centres f4 [896, 2] in fractions of the picture, row by row."""
    found = []
    for stride, per_cell in ((8, 2), (16, 6)):
        cells = DETECTOR_SIDE // stride
        rows, columns = np.mgrid[:cells, :cells]
        centres = (np.stack([columns, rows], axis=-1).reshape(-1, 2) + 0.5) / cells
        found.append(np.repeat(centres, per_cell, axis=0))
    return np.concatenate(found).astype(np.float32)


ANCHORS = _anchors()


def decode(boxes: np.ndarray, logits: np.ndarray, overlap: float) -> list[np.ndarray]:
    """Faces from the network's f4 [896, 16] and f4 [896], highest score first; boxes that overlap by more are merged.

    A face is points f4 [8, 2] (x, y) in fractions of the picture: corners of its box (left top, right bottom), the
    picture's left and right eye, then nose, mouth and ears. The network gives centre and size of the box instead of the
    corners. Its values are in pixels and, except for the size, relative to the anchor.
    """
    scores = 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
    kept = np.flatnonzero(scores >= MIN_SCORE)
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    points = boxes[kept].reshape(-1, 8, 2) / np.float32(DETECTOR_SIDE)
    half = points[:, 1] / 2
    points[:, 1] = points[:, 0]
    points += ANCHORS[kept][:, None]
    points[:, 0] -= half
    points[:, 1] += half
    weights, found = scores[kept], []
    while len(points):
        same = overlaps(points[0, :2].reshape(4), points[:, :2].reshape(-1, 4)) > overlap
        same[0] = True
        found.append(np.average(points[same], axis=0, weights=weights[same]))
        points, weights = points[~same], weights[~same]
    return found


def overlaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union [n] of a box [4] with each of boxes [n, 4] (left, top, right, bottom)."""
    sides = np.maximum(np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2]), 0)
    inner = sides.prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - inner
    return inner / np.maximum(union, 1e-12)


def search(frame: np.ndarray, detect: Callable[[np.ndarray], list[np.ndarray]]) -> Iterator[list[np.ndarray]]:
    """Small faces in a frame u1 [height, width, 3], found by tiles: the spots that the larger squares show, then, if the
    caller goes on, those of the smaller ones.

    `detect` gives the faces in a contiguous picture as points f4 [4, 2] (x, y) in its pixels: left top and right bottom
    of the box, left and right eye. A spot is the same in pixels of the frame; the largest comes first. Some are no
    faces, which the landmark network tells.
    """
    for side in _sides(*frame.shape[:2]):
        spots: list[tuple[float, np.ndarray]] = []  # distance from the middle of its square, points
        for x, y, tile in _tiles(frame, side):
            middle = np.array(tile.shape[1::-1]) / 2
            for points in detect(tile):
                spots.append(
                    (float(np.abs(points[:2].mean(axis=0) - middle).max()), points + np.array([x, y], np.float32))
                )
        if spots:
            yield _distinct(spots)


@dataclass
class Schedule:
    """When to search for small faces: in the first frame of a clip, if it has no face, then every EVERY frames, and seldom
    after LONG frames without one. A face that was found without a search may be gone for `first_gap` frames."""

    first_gap: int
    due: int = 0  # frame
    since: int = 0  # first frame without a face
    is_small: bool = False  # whether the face was found by a search

    def is_due(self, k: int, is_seen: bool) -> bool:
        """Whether to search in frame k."""
        if is_seen:
            self.since, self.due = k + 1, k + 1 if self.is_small else k + 2 + self.first_gap
            return False
        if k < self.due:
            return False
        self.is_small = False
        self.due = k + (EVERY if k - self.since < LONG else SELDOM)
        return True

    def has_found(self, k: int) -> None:
        """A search in frame k has found a face."""
        self.is_small = True
        self.is_due(k, True)


def _sides(height: int, width: int) -> list[int]:
    """Sides of the squares for a picture, in pixels, largest first."""
    longer = max(height, width)
    sides = sorted({max(round(longer / part), LEAST_TILE) for part in TILES}, reverse=True)
    return [side for side in sides if side < longer]


def _tiles(frame: np.ndarray, side: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Left, top and pixels of overlapping squares that cover a frame, without those that are flat."""
    for y in _starts(frame.shape[0], side):
        for x in _starts(frame.shape[1], side):
            tile = np.ascontiguousarray(frame[y : y + side, x : x + side])
            if tile[::4, ::4, 1].std() >= FLAT:
                yield x, y, tile


def _starts(length: int, side: int) -> list[int]:
    """Where squares begin along a line of pixels, spread evenly."""
    count = 1 + max(0, -(-(length - side) // max(round(STEP * side), 1)))
    return np.rint(np.linspace(0, max(length - side, 0), count)).astype(int).tolist()


def _distinct(spots: list[tuple[float, np.ndarray]]) -> list[np.ndarray]:
    """Each face once, where it lies most in the middle of its square; largest first."""
    kept: list[np.ndarray] = []
    for _, points in sorted(spots, key=lambda spot: spot[0]):
        others = np.array([other[:2].reshape(4) for other in kept]).reshape(-1, 4)
        if not (overlaps(points[:2].reshape(4), others) > SAME_SPOT).any():
            kept.append(points)
    return sorted(kept, key=lambda points: -float((points[1] - points[0]).prod()))
