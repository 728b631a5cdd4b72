"""The `lips` teacher: 40 lip landmarks in the aligned mouth frame, with the clip's own mean subtracted.

It has no network of its own: the face stage has measured the points. Subtracting the mean removes the shape of the
speaker's mouth and the camera's view, which do not generalise to other speakers. Motion remains.
"""

from typing import Any

import numpy as np

from concord.frames import FACE
from teachers.base import ClipMedia, TeacherError
from teachers.face.tracker import LIPS, MODEL_SHA256

PART = 4096  # frames that are converted at once
# LIPS are two rings of 20 points, the outer and the inner edge, each from corner to corner and back.
_ring = (10 - np.arange(20)) % 20
_points = np.concatenate([_ring, 20 + _ring])
# The columns i8 [80] and signs f4 [80] of a mirrored face: rows[:, columns] * signs.
MIRROR = ((2 * _points[:, None] + np.arange(2)).ravel(), np.tile(np.array([-1, 1], np.float32), len(_points)))


class Lips:
    """f4 [frames, 80]: x and y of each point in pixels of the mean-face frame; rows without a face are 0."""

    name = "lips"
    stream = "video"
    landmarks = True  # it reads points of the face, not pixels
    dim = 2 * len(LIPS)

    def embed(self, clips: list[ClipMedia]) -> list[np.ndarray]:
        rows = []
        for clip in clips:
            faced = (clip.flags & FACE) > 0
            lips = np.zeros((clip.num_frames, self.dim), np.float32)
            if faced.any():
                lips[faced] = clip.lips[faced].reshape(-1, self.dim)
                mean = _mean(lips, faced)
                for k in range(0, len(lips), PART):
                    part, here = lips[k : k + PART], faced[k : k + PART]
                    part[here] = part[here].astype(np.float64) - mean
            rows.append(lips)
        return rows

    def provenance(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "layer": None,
            "source": "face stage",
            "sha256": MODEL_SHA256,
            "options": {"points": LIPS.tolist(), "centred": "clip"},
            "dim": self.dim,
            "licence": "Apache-2.0",
        }


def _mean(points: np.ndarray, faced: np.ndarray) -> np.ndarray:
    """Mean f8 [columns] of the rows marked in `faced`, added up in their order, so that the parts do not matter."""
    total = np.zeros((0, points.shape[1]))
    for k in range(0, len(points), PART):
        part = points[k : k + PART][faced[k : k + PART]].astype(np.float64)
        total = np.concatenate([total, part]).sum(axis=0, keepdims=True) if len(part) else total
    mean: np.ndarray = total[0] / np.count_nonzero(faced)
    return mean


def load(argument: str, device: str) -> Lips:
    """Entry point `lips`; takes no argument and does not use a device."""
    if argument:
        raise TeacherError(f"teacher 'lips' takes no argument, got '{argument}'")
    return Lips()
