"""Figures with intervals by person: AUC, Brier score, shares.

People are drawn with replacement, all clips of a person together, however few there are: clips of one person are not
independent. With fewer than ten people no interval is narrower than that number of people allows
(`store.similarity.intervals`), so one person gives nearly everything from 0 to 1. A figure that is undefined is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.audit import shortcuts
from store import similarity
from store.similarity.intervals import Z, auc_bounds, independent

DRAWS = 200


@dataclass(frozen=True)
class Auc:
    """The chance that one of `high` values lies above one of the others, its 95 % interval, how many values there are of each
    kind, and how many people they are of."""

    auc: float
    low: float
    high: float
    above: int
    below: int
    people: int

    def told(self, above: str, below: str) -> dict[str, Any]:
        """For JSON, with the names of both kinds."""
        return {
            **{"auc": self.auc, "low": self.low, "high": self.high},
            **{above: self.above, below: self.below, "people": self.people},
        }


@dataclass(frozen=True)
class Values:
    """Finite numbers f8 [n] and the person of each, int [n]."""

    value: np.ndarray
    person: np.ndarray

    def __len__(self) -> int:
        return len(self.value)

    def of(self, chosen: np.ndarray) -> Values:
        """Those that a mask bool [n] or indices choose."""
        return Values(self.value[chosen], self.person[chosen])


def auc(above: Values, below: Values, seed: int = 0, draws: int = DRAWS) -> Auc:
    """AUC of the values that should be higher, with its interval by person."""
    people = len(np.unique(np.concatenate([above.person, below.person])))
    if not len(above) or not len(below):
        return Auc(np.nan, np.nan, np.nan, len(above), len(below), people)
    higher = np.r_[np.ones(len(above), bool), np.zeros(len(below), bool)]
    person = np.concatenate([above.person, below.person])
    value, drawn = shortcuts.auc(np.concatenate([above.value, below.value]), higher, person, seed, draws)
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (0.0, 1.0)
    value = min(max(value, 0.0), 1.0)
    least, most = auc_bounds(value, independent(above.person), independent(below.person))
    return Auc(value, min(float(low), least), max(float(high), most), len(above), len(below), people)


def brier(own: np.ndarray, other: np.ndarray) -> float:
    """Mean squared error of the probabilities [n] that pairs belong together, own pairs and others weighing half each; NaN
    without one of them."""
    return similarity.brier(own, other) if len(own) and len(other) else float("nan")


@dataclass(frozen=True)
class Share:
    """A share of clips with its 95 % interval, as if every person were one observation."""

    share: float
    low: float
    high: float
    count: int
    of: int

    def told(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


def share(hit: np.ndarray, person: Sequence[str]) -> Share:
    """The share of clips for which `hit` bool [n] holds.

    The interval is Wilson's (1927) with as many observations as there are people: it has a width at 0 and 1, too.
    """
    count, total, people = int(np.sum(hit)), len(hit), len(set(person))
    if not total:
        return Share(np.nan, np.nan, np.nan, 0, 0)
    p, n = count / total, people
    middle, spread = (p + Z * Z / (2 * n)), Z * np.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    scale = 1 + Z * Z / n
    low, high = max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
    return Share(p, float(min(low, p)), float(max(high, p)), count, total)
