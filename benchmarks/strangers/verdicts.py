"""What `predict` says of clips: decisions counted, with their reasons.

A false alarm is a real clip called fake, a miss a clip with another's sound called real; both are shares of all such clips,
those that cannot be decided too. What cannot be read is a real clip without a decision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.strangers import figures
from benchmarks.strangers.listed import Listed
from student.predict.records import CANNOT_DECIDE, Answer


@dataclass(frozen=True)
class Verdict:
    """One answer: the clip whose lips it is about, and what was said."""

    listed: Listed
    said: Answer


def told(real: Sequence[Verdict], swapped: Sequence[Verdict], forged: Sequence[Verdict]) -> dict[str, Any]:
    """Counts by kind of clip, and the shares of false alarms, misses and decisions."""
    alarms, misses = _share(real, "fake"), _share(swapped, "real")
    decided = [figures.share(~_is(kind, CANNOT_DECIDE), _people(kind)) for kind in (real, swapped)]
    both = figures.share(~_is([*real, *swapped], CANNOT_DECIDE), _people([*real, *swapped]))
    return {
        "false_alarms": alarms.share,
        "misses": misses.share,
        "decided": both.share,
        "decided_real": decided[0].share,
        "decided_swapped": decided[1].share,
        "intervals": {
            "false_alarms": [alarms.low, alarms.high],
            "misses": [misses.low, misses.high],
            "decided_real": [decided[0].low, decided[0].high],
        },
        "real": counts(real),
        "swapped": counts(swapped),
        "forged": counts(forged),
    }


def counts(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """How many clips there are, how often each decision was made, and why none was."""
    said = Counter(one.said.decision for one in verdicts)
    reasons = Counter(one.said.reason for one in verdicts if one.said.decision == CANNOT_DECIDE)
    return {
        "clips": len(verdicts),
        "real": said["real"],
        "fake": said["fake"],
        "undecided": said[CANNOT_DECIDE],
        "reasons": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    }


def _share(verdicts: Sequence[Verdict], decision: str) -> figures.Share:
    return figures.share(_is(verdicts, decision), _people(verdicts))


def _is(verdicts: Sequence[Verdict], decision: str) -> np.ndarray:
    return np.array([one.said.decision == decision for one in verdicts], bool)


def _people(verdicts: Sequence[Verdict]) -> list[str]:
    return [one.listed.person for one in verdicts]
