"""AUC of several detectors on the same trials: the mean over seeds, and the difference of two ways of training.

Both ways are scored on the same trials, so a bootstrap draws the same people for both and the difference has an interval
much narrower than the two AUCs suggest. An interval covers the choice of people (or clips), not that of seeds: the AUC of
each seed is given beside it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from store.similarity.intervals import auc_bounds, independent
from student.scoring.metrics import DRAWS, auc, units


@dataclass(frozen=True)
class Interval:
    """A figure, the bounds of its 95 % interval, and the figure of each seed. NaN where trials lack a class."""

    value: float
    low: float
    high: float
    by_seed: tuple[float, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def mean_auc(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, draws: int = DRAWS, draw_all: bool = False
) -> Interval:
    """Mean AUC of scores [seeds, n] (higher = fake) with labels [n] in {0, 1} and groups [n], and its interval.

    The interval is by bootstrap over groups (`metrics.units`; with `draw_all` groups are drawn however few or large they
    are), and never narrower than the number of clips, or of groups if they are few, allows.
    """
    by_seed = tuple(auc(row, labels) for row in scores)
    value = float(np.mean(by_seed))
    if len(np.unique(labels)) < 2:
        return Interval(value, float("nan"), float("nan"), by_seed)
    low, high = quantiles(drawn(scores, labels, groups, draws, draw_all).mean(0))
    group, _ = _units(groups, draw_all)
    least, most = auc_bounds(min(max(value, 0.0), 1.0), *(independent(group[labels == k]) for k in (1, 0)))
    return Interval(value, min(low, least), max(high, most), by_seed)


def difference(
    first: np.ndarray,
    second: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    draws: int = DRAWS,
    draw_all: bool = False,
) -> Interval:
    """AUC of `first` minus that of `second`, each the mean over its seeds, scores [seeds, n] of the same trials.

    Every draw has the same groups for both. `by_seed` has differences where the numbers of seeds agree.
    """
    a, b = ([auc(row, labels) for row in rows] for rows in (first, second))
    value = float(np.mean(a) - np.mean(b))
    by_seed = tuple(float(x - y) for x, y in zip(a, b, strict=True)) if len(a) == len(b) else ()
    if len(np.unique(labels)) < 2:
        return Interval(value, float("nan"), float("nan"), by_seed)
    found = drawn(np.concatenate([first, second]), labels, groups, draws, draw_all)
    low, high = quantiles(found[: len(first)].mean(0) - found[len(first) :].mean(0))
    return Interval(value, min(low, value), max(high, value), by_seed)


def quantiles(found: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of figures [draws]; those of draws that lack a class, NaN, do not count."""
    if not np.isfinite(found).any():
        return float("nan"), float("nan")
    low, high = np.nanquantile(found, [0.025, 0.975])
    return float(low), float(high)


def _units(groups: np.ndarray, draw_all: bool) -> tuple[np.ndarray, int]:
    if not draw_all:
        return units(groups)
    names, group = np.unique(groups, return_inverse=True)
    return group, len(names)


def drawn(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, draws: int = DRAWS, draw_all: bool = False
) -> np.ndarray:
    """AUC [rows, draws] of each row of scores [rows, n] in each draw of groups; NaN in a draw that lacks a class."""
    group, count = _units(groups, draw_all)
    rng = np.random.default_rng(0)
    found = np.empty((len(scores), draws))
    order = np.argsort(scores, axis=1, kind="stable")
    starts = []  # of each run of ties
    for row, places in zip(scores, order, strict=True):
        ordered = row[places]
        starts.append(np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]))
    for k in range(draws):
        weight = np.bincount(rng.integers(count, size=count), minlength=count)[group].astype(np.float64)
        for n, (places, start) in enumerate(zip(order, starts, strict=True)):
            real, fakes = (np.add.reduceat((weight * kind)[places], start) for kind in (labels == 0, labels == 1))
            with np.errstate(invalid="ignore"):
                found[n, k] = fakes @ (np.cumsum(real) - real / 2) / (real.sum() * fakes.sum())
    return found


def mean_share(right: np.ndarray, groups: np.ndarray, draws: int = DRAWS) -> Interval:
    """Share of True in right bool [seeds, n], of clips with these groups [n], with an interval by the same bootstrap; NaN
    without clips."""
    by_seed = tuple(float(row.mean()) if len(row) else float("nan") for row in right)
    if not right.shape[1]:
        return Interval(float("nan"), float("nan"), float("nan"), by_seed)
    value = float(np.mean(by_seed))
    low, high = quantiles(_shares(right, groups, draws))
    return Interval(value, min(low, value), max(high, value), by_seed)


def share_difference(first: np.ndarray, second: np.ndarray, groups: np.ndarray, draws: int = DRAWS) -> Interval:
    """The share of `first` minus that of `second`, of the same clips; every draw has the same groups for both."""
    a, b = mean_share(first, groups, 1), mean_share(second, groups, 1)
    value = a.value - b.value
    by_seed = tuple(x - y for x, y in zip(a.by_seed, b.by_seed, strict=False))
    if not first.shape[1]:
        return Interval(value, float("nan"), float("nan"), by_seed)
    low, high = quantiles(_shares(first, groups, draws) - _shares(second, groups, draws))
    return Interval(value, min(low, value), max(high, value), by_seed)


def _shares(right: np.ndarray, groups: np.ndarray, draws: int) -> np.ndarray:
    """The mean share [draws] over seeds in each draw of groups."""
    group, count = units(groups)
    rng, each = np.random.default_rng(0), right.mean(0)
    weights = (np.bincount(rng.integers(count, size=count), minlength=count)[group] for _ in range(draws))
    return np.array([w @ each / w.sum() if w.sum() else np.nan for w in weights])
