"""Embeddings without what stays the same in a clip: a face and its pose on one side, a voice and its microphone on the
other.

A map that was learned from some people takes such constants for content, and then misreads everybody else. So a fit that is
`level` maps embeddings from which they were taken away: from the picture's the mean of the two seconds around each frame, so
that a head may turn; from the sound's the clip's mean, and what is left is divided by the clip's deviation, column by
column. From what the maps make of them, half of the mean of two seconds is taken away once more, on both sides. Own sound
against another's, for people that no fit has seen, is told better by all of this: docs/teachers.md has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

AROUND = 25  # frames before and after: nearer to a clip's end the window is moved, so that it is as long
HALF = 0.5  # of the mean of the frames around, that is taken from a projection
FLOOR = 0.1  # of a column's deviation, as a share of all columns': constant columns are not amplified
TINY = 1e-3
LEAST = 10  # frames with voice, without which a clip is levelled by all of its frames
ROWS = 7_500  # frames summed at once, in double precision


def level_picture(x: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Picture embedding x [frames, D] minus the mean of the frames around each, of those marked in `seen` bool [frames]:
    [frames, D] f4. A frame with none around it stays as it is."""
    return _without_mean(x, seen, 1.0)


def level_projection(x: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Rows x [frames, K] of either side in the shared space minus HALF of the mean of the frames around each, of those
    marked in `known` bool [frames]: [frames, K] f4."""
    return _without_mean(x, known, HALF)


def _without_mean(x: np.ndarray, seen: np.ndarray, share: float) -> np.ndarray:
    n = len(x)
    x = np.asarray(x, np.float32)
    total = np.zeros((n + 1, x.shape[1]))
    np.cumsum(np.where(seen[:, None], x, 0), axis=0, dtype=np.float64, out=total[1:])
    count = np.r_[0, np.cumsum(seen)]
    width = min(2 * AROUND + 1, n)
    first = np.clip(np.arange(n) - AROUND, 0, n - width)
    number = count[first + width] - count[first]
    mean = (total[first + width] - total[first]) / np.maximum(number, 1)[:, None]
    found: np.ndarray = (x - share * mean).astype(np.float32)
    return found


@dataclass(frozen=True)
class Level:
    """Mean and deviation f8 [D] of a clip's sound embedding."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, y: np.ndarray, heard: np.ndarray) -> Level:
        """Of the frames of y [frames, D] that are marked in `heard` bool [frames]; of all if fewer than LEAST are."""
        if heard.sum() < LEAST:
            heard = np.ones(len(y), bool)
        count, mean, square = int(heard.sum()), np.zeros(y.shape[1]), np.zeros(y.shape[1])
        for k in range(0, len(y), ROWS):
            mean += y[k : k + ROWS][heard[k : k + ROWS]].sum(axis=0, dtype=np.float64)
        mean /= max(count, 1)
        for k in range(0, len(y), ROWS):
            square += np.square(y[k : k + ROWS][heard[k : k + ROWS]] - mean).sum(axis=0)
        variance = square / max(count, 1)
        return cls(mean, np.sqrt(variance) + FLOOR * np.sqrt(variance.mean() if variance.size else 0.0) + TINY)

    def __call__(self, y: np.ndarray) -> np.ndarray:
        """Rows of that embedding without it, f4."""
        found: np.ndarray = ((y - self.mean) / self.deviation).astype(np.float32)
        return found


def level_sound(y: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """Sound embedding y [frames, D] minus the clip's mean, by its deviation: [frames, D] f4; see `Level.of`."""
    return Level.of(y, heard)(y)
