"""Finds cuts in a clip: jumps to another picture, on grey thumbnails.

At a cut the mean of the next three frames has another pattern than the mean of the three before. Flashes, fades and
moving heads keep the pattern, which is compared without brightness and contrast. And a cut takes one frame: no other
change near it is half as large. A mouth that sings in a close-up changes the pattern as much, but over several frames.
Not found: dissolves, and cuts between takes of the same head in front of the same wall.

Measured on 198 mouth crops of people who speak, whole and cut closer: no false cut (without the rule of one frame 482),
while 84 % of 300 joints of two such crops are found, which move more than any whole picture.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

SIDE = 16  # pixels of a thumbnail
BESIDE = 3  # frames on either side that are compared
MIN_CHANGE = 8.0  # mean difference of the thumbnails in grey levels
MAX_ALIKE = 0.8  # correlation of two pictures; within one shot GRID's stay above .99
NEAR = 5  # frames on either side whose own changes are compared: those of a webcam may be so far apart
SUDDEN = 2.5  # times the largest other change nearby


def cuts(thumbs: np.ndarray) -> list[int]:
    """First frame of each shot except the first, for grey thumbnails u1 [frames, 16, 16]."""
    flat = thumbs.reshape(len(thumbs), SIDE * SIDE)
    if len(flat) < 2 * BESIDE:
        return []
    change = np.array([0.0, *(np.abs(b.astype(np.float32) - a).mean() for a, b in pairwise(flat))])
    found: list[int] = []
    for k in np.flatnonzero(change > MIN_CHANGE).tolist():
        if not BESIDE <= k <= len(flat) - BESIDE:
            continue
        near = max(change[max(k - NEAR, 0) : k].max(), change[k + 1 : k + NEAR + 1].max())
        before, after = flat[k - BESIDE : k].mean(0), flat[k : k + BESIDE].mean(0)
        if change[k] > SUDDEN * near and alike(before, after) < MAX_ALIKE and (not found or k - found[-1] > BESIDE):
            found.append(k)
    return found


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two pictures of the same size; 1 for two flat ones, 0 if only one is flat."""
    a, b = (np.asarray(x, np.float64).ravel() - np.mean(x) for x in (a, b))
    size = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    flat = [s < len(a) ** 0.5 for s in size]  # one grey level
    if any(flat):
        return float(all(flat))
    return float(a @ b / (size[0] * size[1]))
