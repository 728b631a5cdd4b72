"""Canonical correlation analysis from streaming, mergeable moments (Hotelling 1936,
"Relations between two sets of variates")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from store.similarity.fit import (
    DIMS,
    Fit,
)

SHRINKAGE = 1e-2


@dataclass(frozen=True)
class Moments:
    """Sums over frames of the picture side x [n, dx] and the sound side y [n, dy], in float64; they add."""

    count: int
    sum_x: np.ndarray
    sum_y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray
    yy: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> Moments:
        """Moments of paired rows x [n, dx] and y [n, dy]; raises ValueError where they do not pair or are not finite."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        if len(x) != len(y):
            raise ValueError(f"the two sides do not pair: {len(x)} rows of picture, {len(y)} of sound")
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("embeddings hold values that are not finite")
        return cls(len(x), x.sum(0), y.sum(0), x.T @ x, x.T @ y, y.T @ y)

    def __add__(self, other: Moments) -> Moments:
        return Moments(*(a + b for a, b in zip(self._parts(), other._parts(), strict=True)))

    def __sub__(self, other: Moments) -> Moments:
        """Moments without those of a part, as cross-validation needs them."""
        return Moments(*(a - b for a, b in zip(self._parts(), other._parts(), strict=True)))

    def _parts(self) -> tuple[Any, ...]:  # a number and arrays, which add alike
        return self.count, self.sum_x, self.sum_y, self.xx, self.xy, self.yy


def fit_cca(moments: Moments, context: int, dims: int = DIMS, shrinkage: float = SHRINKAGE) -> Fit:
    """Canonical correlations of the two sides.

    Each covariance is shrunk towards a multiple of the identity: (1 - s) C + s trace(C)/d I (Ledoit and Wolf 2004, with a fixed
    s). Projections have unit variance on the fitting frames. Raises ValueError with fewer frames than dimensions of the space.
    """
    if moments.count <= dims:
        raise ValueError(f"{moments.count} frames with face and voice cannot fit {dims} dimensions; add real clips")
    mean_x, mean_y = moments.sum_x / moments.count, moments.sum_y / moments.count
    cxx = moments.xx / moments.count - np.outer(mean_x, mean_x)
    cxy = moments.xy / moments.count - np.outer(mean_x, mean_y)
    cyy = moments.yy / moments.count - np.outer(mean_y, mean_y)
    white_x, white_y = _whitener(cxx, shrinkage), _whitener(cyy, shrinkage)
    left, values, right = _singular(white_x.T @ cxy @ white_y, dims)
    dims = len(values)
    a, b = white_x @ left, white_y @ right
    sign = np.sign(a[np.abs(a).argmax(0), np.arange(dims)])  # the sign of a pair of directions is free: fix it
    sign[sign == 0] = 1
    return Fit(
        "cca",
        context,
        mean_x.astype(np.float32),
        (a * sign).astype(np.float32),
        mean_y.astype(np.float32),
        (b * sign).astype(np.float32),
        values.clip(0, 1).astype(np.float32),
    )


def _singular(m: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first singular vectors and values of m [r, c]: left [r, k], values [k] falling, right [c, k], k <= count.

    By the symmetric eigenproblem of the smaller side: numpy's SVD (LAPACK's gesdd) does not converge on some processors where
    few clips leave m of low rank. Directions without a value have no other side, and stay zeros there.
    """
    wide = m.shape[0] <= m.shape[1]
    side = m if wide else m.T
    squares, vectors = np.linalg.eigh(side @ side.T)
    order = np.argsort(squares)[::-1][:count]
    near, values = vectors[:, order], np.sqrt(squares[order].clip(0))
    scale = np.where(values > 1e-7 * max(float(values.max(initial=0)), 1e-300), 1 / np.maximum(values, 1e-300), 0.0)
    far = side.T @ near * scale
    return (near, values, far) if wide else (far, values, near)


def _whitener(covariance: np.ndarray, shrinkage: float) -> np.ndarray:
    """W [d, d] with W' C W = I for the shrunk covariance C, by the symmetric root; null directions are left out as zeros."""
    d = len(covariance)
    level = np.trace(covariance) / d
    values, vectors = np.linalg.eigh((1 - shrinkage) * covariance + shrinkage * level * np.eye(d))
    inverse = np.where(values > 1e-12 * max(level, 1e-300), 1 / np.sqrt(np.maximum(values, 1e-300)), 0.0)
    root: np.ndarray = (vectors * inverse) @ vectors.T
    return root
