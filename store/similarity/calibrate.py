"""The logistic map from a score to the probability that picture and sound belong together, and how good it is."""

from __future__ import annotations

import numpy as np


def fit_logistic(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float]:
    """Slope (>= 0) and intercept of the logistic map from scores of true pairs and of swaps [n], each kind weighing the same.

    Newton steps on the log likelihood with Platt's softened targets (Platt 1999, "Probabilistic outputs for support vector
    machines"), so that separable scores keep a finite slope.
    """
    if len(positive) == 0 or len(negative) == 0:
        raise ValueError("calibration needs true pairs and swaps")
    s = np.concatenate([positive, negative]).astype(np.float64)
    hit, miss = 1 - 1 / (len(positive) + 2), 1 / (len(negative) + 2)
    target = np.r_[np.full(len(positive), hit), np.full(len(negative), miss)]
    weight = np.r_[np.full(len(positive), 0.5 / len(positive)), np.full(len(negative), 0.5 / len(negative))]
    slope, intercept = 0.0, 0.0
    for _ in range(100):
        p = 1 / (1 + np.exp(-(slope * s + intercept)))
        gradient = np.array([weight @ ((p - target) * s), weight @ (p - target)])
        curve = weight * p * (1 - p)
        hessian = np.array([[curve @ (s * s), curve @ s], [curve @ s, curve.sum()]]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        step *= min(
            1.0, 5.0 / (np.abs(step).max() + 1e-12)
        )  # far from the optimum the curve is flat and Newton overshoots
        slope, intercept = slope - step[0], intercept - step[1]
        if np.abs(step).max() < 1e-9:
            break
    if not slope > 0:  # swaps score no lower than true pairs: nothing to tell, and the map must not fall
        return 0.0, 0.0
    return float(slope), float(intercept)


def logistic(values: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """1 / (1 + exp(-(slope x + intercept))) as f4, without overflow."""
    z = np.clip(slope * np.asarray(values, np.float64) + intercept, -60, 60)
    return (1 / (1 + np.exp(-z))).astype(np.float32)


def brier(positive: np.ndarray, negative: np.ndarray) -> float:
    """Mean squared error of probabilities of true pairs and swaps [n], each kind weighing half (Brier 1950)."""
    return float(0.5 * np.mean((1 - positive) ** 2) + 0.5 * np.mean(negative**2))


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a true pair scores above a swap, ties counting half (Mann and Whitney 1947)."""
    values, inverse, counts = np.unique(np.concatenate([positive, negative]), return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2  # mean rank of each distinct value, counted from 1
    n, m = len(positive), len(negative)
    return float((rank[inverse[:n]].sum() - n * (n + 1) / 2) / (n * m)) if n and m and len(values) else float("nan")
