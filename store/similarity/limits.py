"""The two limits of a verdict: below the first a video is fake, above the second it is real, between them neither.

They come from scores of units that are exchangeable with the one to be judged: people whom a fit has not seen, for a
video of a stranger, or one person's own genuine videos. Both promises are conformal, so they need no shape of the
distribution: of real videos of new people at most the stated share falls below the first limit, and of videos with
another sound at most MISSES lies above the second (on average over the people measured).

Clips of one person are alike, so people count, not clips: each person's clips share that person's weight (Lee, Barber
and Willett 2023, "Distribution-free inference with hierarchical data", arXiv 2306.06342, HCP). With one clip a person
this is the k-th lowest of n scores, k = floor(share x (n + 1)). With n people no limit holds a share below 1 / (n + 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

RATE = 0.05  # false alarms: real videos called fake, at most
MISSES = 0.1  # videos with another sound called real, at most
USUAL = 0.25  # "fake" takes a score as low as those of all but this share of videos with another sound
STEPS = 200  # steps of the stored distribution: half a percent each
MOST = 1 << 40  # units or clips that a record may claim
CLOSE = 1e-9  # of shares, against rounding


@dataclass(frozen=True)
class Scores:
    """The distribution of some scores (higher = more like a real video), units weighed alike.

    `levels`: STEPS + 1 rising scores; level k is the lowest score with at least k / STEPS of the weight at or below it.
    `units`: people, or whatever is independent; `clips`: the clips that were scored, or the pairs.
    """

    levels: tuple[float, ...]
    units: int
    clips: int

    @classmethod
    def of(
        cls,
        scores: Sequence[float] | np.ndarray,
        units: Sequence[Any] | np.ndarray | None = None,
        clips: int | None = None,
    ) -> Scores:
        """From scores [n] and the unit of each; each score is a unit of its own if `units` is left out. `clips` is the
        number of clips if some gave several scores.

        Raises ValueError without scores, and for scores that are not finite.
        """
        found = np.asarray(scores, np.float64)
        names = np.arange(len(found)) if units is None else np.asarray(units)
        if found.ndim != 1 or not len(found) or names.shape != found.shape or not np.isfinite(found).all():
            raise ValueError(f"expected finite scores, each of one unit, got {found.shape} of {names.shape}")
        _, unit, size = np.unique(names, return_inverse=True, return_counts=True)
        order = np.argsort(found, kind="stable")
        reached = np.cumsum(1 / size[unit[order]]) / len(size)
        # the last sum may miss 1 by rounding
        rows = np.searchsorted(reached, np.arange(STEPS + 1) / STEPS - CLOSE).clip(0, len(found) - 1)
        return cls(tuple(float(x) for x in found[order][rows]), len(size), len(found) if clips is None else clips)

    def below(self, share: float) -> float | None:
        """The highest level below which the score of one more unit falls with a chance of at most `share`; None if there
        are too few units for any."""
        if (steps := self._steps(share)) is None:
            return None
        return self.levels[steps]

    def above(self, share: float) -> float | None:
        """The lowest level above which the score of one more unit lies with a chance of at most `share`; None as in
        `below`."""
        if (steps := self._steps(share)) is None:
            return None
        return self.levels[STEPS - steps]

    def _steps(self, share: float) -> int | None:
        """Steps of the distribution that may lie beyond a limit: the new unit itself takes 1 / (units + 1)."""
        free = (share * (self.units + 1) - 1) / self.units
        return None if free < -CLOSE else min(STEPS, max(0, math.floor(free * STEPS + CLOSE)))

    def told(self) -> dict[str, Any]:
        """For JSON: what `read` reads."""
        return {"units": self.units, "clips": self.clips, "levels": [float(f"{x:.5g}") for x in self.levels]}

    @classmethod
    def read(cls, note: object, most: float) -> Scores:
        """From attributes or a header, which may come from anyone; scores are within +-`most`. Raises ValueError for
        anything that `told` does not give."""
        note = note if isinstance(note, Mapping) else {}
        levels, units, clips = note.get("levels"), note.get("units"), note.get("clips")
        if not isinstance(levels, list | tuple) or len(levels) != STEPS + 1 or not all(number(x, most) for x in levels):
            raise ValueError(f"expected {STEPS + 1} levels")
        if any(a > b for a, b in pairwise(levels)):
            raise ValueError("levels that fall")
        if type(units) is not int or type(clips) is not int or not 1 <= units <= clips <= MOST:
            raise ValueError("expected units, and no fewer clips")
        return cls(tuple(float(x) for x in levels), units, clips)


@dataclass(frozen=True)
class Limits:
    """Below `fake` a score is fake, above `real` it is real; None where too few units were measured for that side.

    `alarms` and `misses` are the shares that they hold. `gap`: real videos and others lie so far apart that a score between the
    limits is rare among both; `real` is then the limit of real videos. `usual`: `fake` is what is usual among others, which
    is below the limit of real videos.
    """

    fake: float | None
    real: float | None
    alarms: float = RATE
    misses: float = MISSES
    gap: bool = False
    usual: bool = False

    @classmethod
    def of(cls, own: Scores, swaps: Scores, alarms: float = RATE, misses: float = MISSES) -> Limits:
        """From scores of own pairs (real videos) and of swaps (another sound).

        Real videos of other cameras and languages than those measured score lower, others do not. So "fake" also takes a score
        that is usual among others, and a score that is rare among both is neither; the shares hold all the same.
        """
        fake, real, usual = own.below(alarms), swaps.above(misses), swaps.above(USUAL)
        gap = fake is not None and real is not None and real < fake
        high = fake if gap else real
        if fake is not None and usual is not None and usual < fake:
            return cls(usual, high, alarms, misses, gap, usual=True)
        return cls(fake, high, alarms, misses, gap)

    def decide(self, score: float) -> str:
        """ "fake", "real", or "" between the limits and for a score that is not finite."""
        if not math.isfinite(score):
            return ""
        if self.fake is not None and score < self.fake:
            return "fake"
        return "real" if self.real is not None and score > self.real else ""


def least_units(share: float) -> int:
    """Units without which no limit holds `share`."""
    return max(1, math.ceil(1 / share - 1 - CLOSE))


def one_in(share: float, what: str = "") -> str:
    """A share in words: "1 in 20", "1 false alarm in 20", "3 false alarms in 100"."""
    times = round(1 / share)
    if abs(times * share - 1) < 0.005:
        return f"1 {what} in {times:,}" if what else f"1 in {times:,}"
    return f"{share * 100:.3g} {what}s in 100" if what else f"{share * 100:.3g} in 100"


def number(value: object, most: float = 1e9) -> bool:
    """Whether it is a number within +-`most`."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= most
