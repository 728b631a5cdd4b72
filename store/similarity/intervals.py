"""Intervals that stay wide if there are few clips: resampling clips says nothing about unseen clips.

A bootstrap of one fake, or of clips that a number tells apart without a fault, gives the same figure in every draw, so an
interval of no width. Here a bound is the true value at which the observed one would just be surprising.
"""

from __future__ import annotations

from collections.abc import Callable

Z = 1.959964  # 95 %, two sides


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


def _edge(surprised: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where `surprised` ends between a value outside and one inside, by bisection."""
    for _ in range(60):
        middle = (outside + inside) / 2
        outside, inside = (middle, inside) if surprised(middle) else (outside, middle)
    return (outside + inside) / 2
