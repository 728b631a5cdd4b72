"""Decodes the face detector's raw output into faces: boxes and eyes.

A single-shot detector has 896 anchors (a 16 x 16 grid with two each, an 8 x 8 grid with six). For each it gives the
position of a face's box and of six key points, and a score. Boxes that overlap are averaged, weighted by their scores.
The constants are from MediaPipe's face_detector graph (Apache-2.0) and "BlazeFace" (arXiv 1907.05047); no code was
copied.
"""

import numpy as np

from teachers.face.networks import DETECTOR_SIDE

MIN_SCORE = 0.5


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
