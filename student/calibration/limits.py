"""The two limits of a verdict: below the first a video is fake, from the second on it is real, between them neither."""

from __future__ import annotations

import math

import numpy as np

from store.similarity.limits import MISSES, RATE


def limits(own: np.ndarray, swapped: np.ndarray, alarms: float = RATE, misses: float = MISSES) -> tuple[float, float]:
    """The limits (fake, real) from the scores of own pieces [n] and of swapped ones [m], neither empty.

    Conformal: one more genuine piece falls below the k-th lowest of n, k = alarms x (n + 1), with chance `alarms`; with
    fewer than 1 / alarms - 1 pieces the lowest stands in, and the chance is 1 / (n + 1). Where both promises leave a gap,
    one limit in its middle keeps both. (`store.similarity.limits` does the same for people, from stored distributions.)
    """
    low, high = np.sort(np.asarray(own, np.float64)), np.sort(np.asarray(swapped, np.float64))[::-1]
    fake, real = low[_rank(alarms, len(low))], high[_rank(misses, len(high))]
    if real < fake:
        fake = real = (fake + real) / 2
    return float(fake), float(real)


def _rank(share: float, count: int) -> int:
    """Index of the score beyond which at most `share` of new ones lie."""
    return min(count - 1, max(0, math.floor(share * (count + 1) + 1e-9) - 1))
