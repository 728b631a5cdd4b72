"""Intervals that stay wide if there are few clips: resampling clips says nothing about unseen clips.

A bootstrap of one fake, or of clips that a number tells apart without a fault, gives the same figure in every draw, so an
interval of no width. Here a bound is the true value at which the observed one would just be surprising.

Clips of one source (a page, a data set) are alike in ways that have nothing to do with forgery, so an AUC for new sources
has an interval from drawing whole sources (`auc_by_cluster`; a cluster bootstrap, Davison and Hinkley 1997, section 3.8).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Z = 1.959964  # 95 %, two sides
DRAWS = 500
CELLS = 1_000_000  # weights held at once while drawing
FEW = 10  # clusters from which on the spread of draws alone is trusted


def auc_bounds(value: float, fakes: int, reals: int, z: float = Z) -> tuple[float, float]:
    """95 % interval of an AUC `value` in [0, 1] of `fakes` and `reals` independent clips, at least one of each.

    The true values whose distance from `value` is at most z standard errors, with the variance of Hanley and McNeil (1982) in
    the form of Newcombe (2006, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic", part 2,
    method 5): as Wilson's does for a share, it has a width at 0 and 1 too. Raises ValueError without fakes or reals.
    """
    if min(fakes, reals) < 1 or not 0 <= value <= 1:
        raise ValueError(f"no interval of an AUC of {value} on {fakes} fakes and {reals} reals")
    mean = (fakes + reals) / 2 - 1

    def surprised(true: float) -> bool:
        spread = true * (1 - true) * (1 + mean * (1 - true) / (2 - true) + mean * true / (1 + true))
        return (value - true) ** 2 * fakes * reals > z * z * spread

    return _edge(surprised, 0.0, value), _edge(surprised, 1.0, value)


def auc_by_cluster(
    scores: np.ndarray,
    is_fake: np.ndarray,
    cluster: np.ndarray,
    weights: np.ndarray | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[float, float]:
    """95 % interval of the AUC of finite scores [n] (higher = fake), is_fake bool [n], by drawing clusters [n] whole.

    All clusters are drawn with replacement, however few there are; draws without a real or a fake clip do not count. With
    fewer than FEW clusters of fakes or of reals, each counts as one clip and the interval is never narrower than so few
    allow (`auc_bounds`). weights [n]: a clip counts so often, None = once. NaN without fakes or reals.
    """
    known = np.ones(len(scores), bool) if weights is None else np.asarray(weights) > 0
    scores, is_fake = np.asarray(scores)[known], np.asarray(is_fake, bool)[known]
    if not is_fake.any() or is_fake.all():
        return float("nan"), float("nan")
    names, number = np.unique(np.asarray(cluster)[known], return_inverse=True)
    clip = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)[known]
    times = np.concatenate([np.ones((1, len(names)), int), times_drawn(len(names), draws, seed)])
    step = max(1, CELLS // len(scores))
    parts = [auc_by_draw(scores, is_fake, times[k : k + step, number] * clip) for k in range(0, len(times), step)]
    found = np.concatenate(parts)
    value, found = min(max(float(found[0]), 0.0), 1.0), found[np.isfinite(found)]
    low, high = np.quantile(found, [0.025, 0.975])
    least, most = auc_bounds(value, *(independent(number[kind]) for kind in (is_fake, ~is_fake)))
    return min(float(low), least), max(float(high), most)


def times_drawn(count: int, draws: int, seed: int) -> np.ndarray:
    """How often each of `count` clusters comes in each draw of as many, i8 [draws, count]."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)


def auc_by_draw(scores: np.ndarray, is_fake: np.ndarray, times: np.ndarray) -> np.ndarray:
    """AUC f8 [draws] of scores [n] (higher = fake; a tie is half a win) where each clip comes `times` [draws, n]; NaN in
    draws without fakes or reals."""
    order = np.argsort(scores, kind="stable")
    scores, is_fake, times = scores[order], is_fake[order], np.asarray(times, np.float64)[:, order]
    start = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])  # of each run of ties
    real, fake = (np.add.reduceat(times * kind, start, axis=1) for kind in (~is_fake, is_fake))
    pairs = real.sum(1) * fake.sum(1)
    wins = (fake * (np.cumsum(real, axis=1) - real / 2)).sum(1)
    return np.where(pairs > 0, wins / np.where(pairs > 0, pairs, 1), np.nan)


def independent(cluster: np.ndarray) -> int:
    """The number of independent clips of these clusters [n]: the clusters if they are few; else all clips, because
    clusters are drawn anyway."""
    clusters = len(np.unique(cluster))
    return clusters if clusters < FEW else len(cluster)


def _edge(surprised: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where `surprised` ends between a value outside and one inside, by bisection."""
    for _ in range(60):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if surprised(middle) else (outside, middle)
    return (outside + inside) / 2
