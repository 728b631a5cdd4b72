"""Figures of a detector from its scores: AUC, AP, EER, balanced accuracy; threshold and temperature fitted on validation.

Everywhere label 1 = fake is the positive class and a higher score means more likely fake. A figure that does not exist (one
class only) is NaN, never an error and never a flattering default. numpy and scipy alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from store.similarity import auc as _auc


@dataclass(frozen=True)
class Figures:
    """num_real and num_fake are clips that were scored; prevalence is the share of fakes, the AP of a detector that guesses."""

    num_real: int
    num_fake: int
    auc: float
    ap: float
    prevalence: float
    eer: float
    balanced_accuracy: float
    real_recall: float


def figures(scores: np.ndarray, labels: np.ndarray, threshold: float) -> Figures:
    """All figures of scores [n] (higher = fake) against labels [n] in {0, 1}, the last two at `threshold`."""
    scores, labels = _checked(scores, labels)
    real, fake = scores[labels == 0], scores[labels == 1]
    prevalence = len(fake) / len(labels) if len(labels) else float("nan")
    return Figures(
        len(real),
        len(fake),
        auc(scores, labels),
        average_precision(scores, labels),
        prevalence,
        equal_error_rate(scores, labels),
        balanced_accuracy(scores, labels, threshold),
        float(np.mean(real < threshold)) if len(real) else float("nan"),
    )


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a fake scores above a real, ties counting half; NaN with one class."""
    scores, labels = _checked(scores, labels)
    return _auc(scores[labels == 1], scores[labels == 0])


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean precision over the fakes, at each one's own threshold; tied scores share one threshold. NaN without fakes."""
    scores, labels = _checked(scores, labels)
    if not labels.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    scores, labels = scores[order], labels[order]
    last = np.r_[scores[1:] != scores[:-1], True]  # last of each group of ties
    hits = np.cumsum(labels)[last]
    precision = hits / (np.flatnonzero(last) + 1)
    return float(np.sum(np.diff(np.r_[0, hits]) * precision) / hits[-1])


def roc(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False positive rate, true positive rate (both from 0 to 1) and the thresholds (score >= threshold is called fake)."""
    scores, labels = _checked(scores, labels)
    order = np.argsort(-scores, kind="stable")
    scores, labels = scores[order], labels[order]
    last = np.r_[scores[1:] != scores[:-1], True] if len(scores) else np.zeros(0, bool)
    with np.errstate(invalid="ignore"):
        tpr = np.r_[0, np.cumsum(labels)[last]] / labels.sum()
        fpr = np.r_[0, np.cumsum(1 - labels)[last]] / (1 - labels).sum()
    return fpr, tpr, np.r_[np.inf, scores[last]]


def equal_error_rate(scores: np.ndarray, labels: np.ndarray) -> float:
    """Where misses equal false alarms, on the ROC's straight segments; NaN with one class."""
    scores, labels = _checked(scores, labels)
    if len(np.unique(labels)) < 2:
        return float("nan")
    fpr, tpr, _ = roc(scores, labels)
    gap = fpr - (1 - tpr)  # rises from -1 to 1
    k = int(np.argmax(gap >= 0))
    step = gap[k] - gap[k - 1]
    share = -gap[k - 1] / step
    return float(fpr[k - 1] + share * (fpr[k] - fpr[k - 1]))


def balanced_accuracy(scores: np.ndarray, labels: np.ndarray, threshold: float) -> float:
    """Mean of the share of reals below and of fakes at or above the threshold; NaN with one class."""
    scores, labels = _checked(scores, labels)
    if len(np.unique(labels)) < 2:
        return float("nan")
    called = scores >= threshold
    return float(0.5 * np.mean(called[labels == 1]) + 0.5 * np.mean(~called[labels == 0]))


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
    """T of least cross-entropy for P(fake) = sigmoid((logit - threshold) / T), each class weighing half.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", moved so that the threshold reads 0.5; with Platt's softened
    targets (1999), so that separable scores of a few clips do not read as certainty. Within [0.05, 20]; 1 with one class.
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


def probability(logits: np.ndarray, threshold: float, temperature: float) -> np.ndarray:
    """P(fake) of logits [n]: 0.5 at the threshold."""
    z = np.clip((np.asarray(logits, np.float64) - threshold) / temperature, -60, 60)
    return 1 / (1 + np.exp(-z))


def _checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels).astype(np.int64)
    if scores.shape != labels.shape or scores.ndim != 1:
        raise ValueError(f"expected one score and one label a clip, got {scores.shape} and {labels.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels must be 0 (real) or 1 (fake)")
    return scores, labels
