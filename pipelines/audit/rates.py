"""How well one number tells two classes apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.corpora.manifest import Row

if TYPE_CHECKING:
    pass

DRAWS = 200
FEW_GROUPS = 10
CELLS = 1_000_000  # weights held at once while drawing


def groups(rows: Sequence[Row]) -> np.ndarray:
    """Group number [rows] of each clip, as intervals and folds use it."""
    for names in (
        [row.group or row.id for row in rows],
        [row.identities[0] if row.identities else row.id for row in rows],
    ):
        _, number, size = np.unique(np.array(names, object).astype(str), return_inverse=True, return_counts=True)
        if len(size) >= FEW_GROUPS and size.max() <= len(rows) / 2:
            return number
    return np.arange(len(rows))


def auc(
    scores: np.ndarray, fake: np.ndarray, group: np.ndarray, seed: int = 0, draws: int = DRAWS
) -> tuple[float, np.ndarray]:
    """The chance that a fake's score [n] is above a real's, ties half, and the same for `draws` draws of groups.

    Mann and Whitney 1947, weighted by how often each clip's group was drawn; draws without a real or a fake are NaN.
    """
    order = np.argsort(scores, kind="stable")
    scores, fake, group = scores[order], fake[order], group[order]
    start = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])  # of each run of ties
    numbers, group = np.unique(group, return_inverse=True)
    rng = np.random.default_rng(seed)
    found = [_weighted(np.ones((1, len(scores)), np.float32), fake, start)]
    step = max(1, CELLS // max(len(scores), 1))
    for begin in range(0, draws, step):
        num = min(step, draws - begin)
        times = rng.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=num).astype(np.float32)
        found.append(_weighted(times[:, group], fake, start))
    values = np.concatenate(found)
    return float(values[0]), values[1:]


def weighted_auc(scores: np.ndarray, fake: np.ndarray, weight: np.ndarray) -> float:
    """The chance that a fake's score [n] is above a real's, ties half, clips drawn by `weight` [n]; NaN without one of both."""
    order = np.argsort(scores, kind="stable")
    scores = scores[order]
    if not len(scores):
        return float("nan")
    start = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    return float(_weighted(weight[order][None].astype(np.float64), fake[order], start)[0])


def _weighted(weight: np.ndarray, fake: np.ndarray, start: np.ndarray) -> np.ndarray:
    """AUC [draws] of clips sorted by score, with their weights [draws, clips]."""
    real = np.add.reduceat(weight * ~fake, start, axis=1).astype(np.float64)
    fakes = np.add.reduceat(weight * fake, start, axis=1).astype(np.float64)
    below = np.cumsum(real, axis=1) - real / 2
    pairs = real.sum(1) * fakes.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (fakes * below).sum(1) / pairs
