"""Figures of a detector from its scores: AUC, AP, EER, balanced accuracy; threshold and temperature fitted on validation.

Everywhere label 1 = fake is the positive class and a higher score means more likely fake. A figure that is undefined
(one class only) is NaN, never an error or a flattering default. A clip of weight w counts as w clips (matched test
sets); None = weight 1.

Curves and AP are scikit-learn's. Implemented here: the AUC, with the same ranks as the store's calibration and the
audit (a tie is half a win) and in a tenth of the time; its interval by groups, hundreds of draws on one sorting; the
EER, interpolated between two points of the curve; balanced accuracy, NaN if a class is missing; threshold and
temperature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from store import similarity
from store.similarity.intervals import auc_bounds, independent

DRAWS = 500
FEW_GROUPS = 10


@dataclass(frozen=True)
class Figures:
    """num_real and num_fake are the numbers of scored clips; prevalence is the share of fakes, which is the AP of a
    random detector."""

    num_real: int
    num_fake: int
    auc: float
    ap: float
    prevalence: float
    eer: float
    balanced_accuracy: float
    real_recall: float


def figures(scores: np.ndarray, labels: np.ndarray, threshold: float, weights: np.ndarray | None = None) -> Figures:
    """All figures of scores [n] (higher = fake) against labels [n] in {0, 1}, the last two at `threshold`.

    num_real and num_fake count clips with a weight above 0; the others are ignored.
    """
    scores, labels, w = _weighted(scores, labels, weights)
    whole = float(w.sum())
    real = w[labels == 0].sum()
    return Figures(
        int((labels == 0).sum()),
        int((labels == 1).sum()),
        auc(scores, labels, w),
        average_precision(scores, labels, w),
        float(w[labels == 1].sum()) / whole if whole else float("nan"),
        equal_error_rate(scores, labels, w),
        balanced_accuracy(scores, labels, threshold, w),
        float(w[(labels == 0) & (scores < threshold)].sum() / real) if real else float("nan"),
    )


def auc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Area under the ROC curve: the probability that a fake scores above a real, ties counting half; NaN with one
    class."""
    scores, labels, w = _weighted(scores, labels, weights)
    if (w == 1).all():
        return similarity.auc(scores[labels == 1], scores[labels == 0])
    if len(np.unique(labels)) < 2:
        return float("nan")
    fpr, tpr, _ = roc(scores, labels, w)
    return float(np.trapezoid(tpr, fpr))


def auc_interval(
    scores: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    weights: np.ndarray | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[float, float]:
    """95 % interval of `auc` by bootstrap over groups [n] (people, sources) (Efron 1979, percentiles).

    Clips of one person are not independent, so whole groups are drawn. If one group holds more than half of the clips,
    or there are fewer than FEW_GROUPS, clips are drawn instead, and the interval is too narrow. It is never narrower
    than the number of clips, or of groups if they are few, allows (`store.similarity.intervals`), so even a single fake
    has an interval. NaN with one class, and of a single group, which says nothing about others.
    """
    groups = np.asarray(groups)[np.asarray(weights) > 0] if weights is not None else np.asarray(groups)
    scores, labels, w = _weighted(scores, labels, weights)
    if len(np.unique(labels)) < 2 or len(np.unique(groups)) < 2:
        return float("nan"), float("nan")
    group, count = units(groups)
    order = np.argsort(scores, kind="stable")
    scores, fake, w, group = scores[order], labels[order] == 1, w[order], group[order]
    start = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])  # of each run of ties
    rng, found = np.random.default_rng(seed), np.empty(draws)
    for k in range(draws):
        drawn = w * np.bincount(rng.integers(count, size=count), minlength=count)[group]
        real, fakes = (np.add.reduceat(drawn * kind, start) for kind in (~fake, fake))
        with np.errstate(invalid="ignore"):
            found[k] = fakes @ (np.cumsum(real) - real / 2) / (real.sum() * fakes.sum())
    low, high = np.nanquantile(found, [0.025, 0.975]) if np.isfinite(found).any() else (0.0, 1.0)
    value = min(max(auc(scores, fake, w), 0.0), 1.0)
    least, most = auc_bounds(value, *(independent(group[kind]) for kind in (fake, ~fake)))
    return min(float(low), least), max(float(high), most)


def units(groups: np.ndarray) -> tuple[np.ndarray, int]:
    """What a bootstrap draws: the unit i8 [n] of each clip, and how many there are. A unit is a group or, with fewer than
    FEW_GROUPS or one that holds more than half of the clips, a clip."""
    _, group, size = np.unique(groups, return_inverse=True, return_counts=True)
    if len(size) < FEW_GROUPS or size.max() > len(group) / 2:
        return np.arange(len(group)), len(group)
    return group, len(size)


def average_precision(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean precision over the fakes, each at its own score as threshold; ties share one threshold. NaN without
    fakes."""
    scores, labels, w = _weighted(scores, labels, weights)
    if not labels.any():
        return float("nan")
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(labels, scores, sample_weight=w))


def roc(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False positive rate, true positive rate (both from 0 to 1) and the thresholds (score >= threshold is called fake), of
    scores of both classes."""
    from sklearn.metrics import roc_curve

    scores, labels, w = _weighted(scores, labels, weights)
    fpr, tpr, thresholds = roc_curve(labels, scores, sample_weight=w, drop_intermediate=False)
    return fpr, tpr, thresholds


def equal_error_rate(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The rate at which misses equal false alarms, on the ROC's straight segments; NaN with one class."""
    scores, labels, w = _weighted(scores, labels, weights)
    if len(np.unique(labels)) < 2:
        return float("nan")
    fpr, tpr, _ = roc(scores, labels, w)
    gap = fpr - (1 - tpr)  # rises from -1 to 1
    k = int(np.argmax(gap >= 0))
    step = gap[k] - gap[k - 1]
    share = -gap[k - 1] / step
    return float(fpr[k - 1] + share * (fpr[k] - fpr[k - 1]))


def balanced_accuracy(
    scores: np.ndarray, labels: np.ndarray, threshold: float, weights: np.ndarray | None = None
) -> float:
    """Mean of two shares: reals below the threshold, and fakes at or above it; NaN with one class."""
    scores, labels, w = _weighted(scores, labels, weights)
    if len(np.unique(labels)) < 2:
        return float("nan")
    right, fake = (scores >= threshold) == labels, labels == 1
    return float(0.5 * np.average(right[fake], weights=w[fake]) + 0.5 * np.average(right[~fake], weights=w[~fake]))


def fit_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """Threshold of the best balanced accuracy, in the middle of the widest best gap; 0 with one class only."""
    scores, labels = _checked(scores, labels)
    if len(np.unique(labels)) < 2:
        return 0.0
    values = np.unique(scores)
    edges = np.r_[values[0] - 1.0, values, values[-1] + 1.0]
    candidates, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    fakes, reals = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    miss = np.searchsorted(fakes, candidates, "left") / len(fakes)
    alarm = 1 - np.searchsorted(reals, candidates, "left") / len(reals)
    error = miss + alarm
    best = np.flatnonzero(error <= error.min() + 1e-12)
    return float(candidates[best[np.argmax(width[best])]])


def fit_temperature(logits: np.ndarray, labels: np.ndarray, threshold: float) -> float:
    """T of minimal cross-entropy for P(fake) = sigmoid((logit - threshold) / T), with equal weight for both classes.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", shifted so that the threshold has probability 0.5; with
    Platt's softened targets (1999), so that separable scores of a few clips do not give certainty. Within [0.05, 20]; 1
    with one class.
    """
    logits, labels = _checked(logits, labels)
    if len(np.unique(labels)) < 2:
        return 1.0
    num_fake, num_real = int(labels.sum()), int((1 - labels).sum())
    weight = np.where(labels == 1, 0.5 / num_fake, 0.5 / num_real)
    target = np.where(labels == 1, 1 - 1 / (num_fake + 2), 1 / (num_real + 2))
    moved = logits - threshold

    def loss(log_t: float) -> float:
        z = moved / np.exp(log_t)
        return float(weight @ (np.logaddexp(0, z) - target * z))

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def equal_weights(parts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights f8 [P] of the parts [n, P] of a score, with which each has deviation 1 over real clips."""
    real = parts[labels == 0] if (labels == 0).sum() > 1 else parts
    return np.asarray(1 / np.maximum(real.std(0), 1e-3))


def fit_weights(parts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Weights f8 [P], none negative, of the parts [n, P] of a score: logistic regression, both classes with equal weight.

    A penalty of 1 / n of the smaller class holds them at `equal_weights`, which one class alone gives.
    """
    scale = equal_weights(parts, labels)
    count = np.array([(labels == 0).sum(), (labels == 1).sum()])
    if count.min() == 0:
        return scale
    z = parts * scale
    z = z - z[labels == 0].mean(0)
    sign, each = np.where(labels == 1, 1.0, -1.0), 0.5 / count[labels]
    strength = 1 / count.min()

    def loss(x: np.ndarray) -> float:
        margin = sign * (z @ x[:-1] + x[-1])
        return float(each @ np.logaddexp(0, -margin) + strength * np.square(x[:-1] - 1).mean())

    bounds = [(0.0, None)] * z.shape[1] + [(None, None)]
    found = minimize(loss, np.r_[np.ones(z.shape[1]), 0.0], bounds=bounds, method="L-BFGS-B")
    return np.asarray(scale * found.x[:-1])


def probability(logits: np.ndarray, threshold: float, temperature: float) -> np.ndarray:
    """P(fake) of logits [n]: 0.5 at the threshold."""
    z = np.clip((np.asarray(logits, np.float64) - threshold) / temperature, -60, 60)
    return 1 / (1 + np.exp(-z))


def _weighted(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels and weights f8 of the clips with a weight."""
    scores, labels = _checked(scores, labels)
    if weights is None:
        return scores, labels, np.ones(len(scores))
    w = np.asarray(weights, np.float64)
    if w.shape != scores.shape or not (np.isfinite(w) & (w >= 0)).all():
        raise ValueError(f"expected {len(scores)} weights of 0 or more, got {w.shape}")
    return scores[w > 0], labels[w > 0], w[w > 0]


def _checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels).astype(np.int64)
    if scores.shape != labels.shape or scores.ndim != 1:
        raise ValueError(f"expected one score and one label per clip, got {scores.shape} and {labels.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 (real) or 1 (fake)")
    return scores, labels
