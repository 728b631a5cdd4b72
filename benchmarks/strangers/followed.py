"""How near a student comes to its teachers: both judge the very same lips and sound.

A pair counts if both have a score of it. The teachers' is the mean similarity over the pair's frames with face and voice,
the student's its logit, with the sound where it stands: no pair is moved to where it fits best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.strangers import evidence, figures
from benchmarks.strangers.decider import Decider
from benchmarks.strangers.evidence import Evidence, Source
from benchmarks.strangers.gather import Clip
from benchmarks.strangers.sound import Pair
from store import similarity
from student.predict.basis import Detector

OWN = "own"


@dataclass(frozen=True)
class Both:
    """What student and teachers say of pairs of one kind, and the clip whose lips they are of, each [pairs]; higher = fake.
    A pair of which one of the two has no score is left out."""

    student: np.ndarray
    teachers: np.ndarray
    clip: np.ndarray


def judged(
    clips: Sequence[Clip], kinds: Mapping[str, Sequence[Pair]], source: Source, decider: Decider, detector: Detector,
    step: Callable[[], None],
) -> dict[str, Both]:  # fmt: skip
    """Every kind of pairs, one clip's lips after the other, so that few pictures are in memory."""
    found: dict[str, list[tuple[float, float, int]]] = {kind: [] for kind in kinds}
    for i, clip in enumerate(clips):
        lips = decider.face(source.pictured(clip.evidence))
        for kind, pairs in kinds.items():
            for _, j, shift in (pair for pair in pairs if pair[0] == i):
                heard = lips if j == i else source.pictured(clips[j].evidence)
                pair = evidence.dubbed(lips, heard, shift)
                found[kind].append((_logit(detector, pair), -_similarity(decider.on.fit, pair), i))
        step()
    return {kind: _both(rows) for kind, rows in found.items()}


def told(found: Mapping[str, Both], person: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    """AUC of student and teachers on each kind of pairs against own sound, over the clips `chosen` bool [clips] of the people
    `person` int [clips]."""
    return {kind: _told(found[OWN], some, person, chosen) for kind, some in found.items() if kind != OWN}


def _told(own: Both, other: Both, person: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    def auc(name: str) -> dict[str, Any]:
        values = [figures.Values(getattr(x, name), person[x.clip]).of(chosen[x.clip]) for x in (other, own)]
        return figures.auc(*values).told("against", OWN)

    return {**auc("student"), "teachers": auc("teachers")}


def _logit(detector: Detector, pair: Evidence) -> float:
    logit = detector.judge(pair.clip).logit
    return math.nan if logit is None else logit


def _similarity(fit: similarity.Fit, pair: Evidence) -> float:
    mask = pair.evident & pair.voice
    if not mask.any():
        return math.nan
    return float(similarity.scores(pair.vsr_projection, pair.asr_projection, fit, 1)[mask].mean())


def _both(rows: Sequence[tuple[float, float, int]]) -> Both:
    table = np.array(rows, float).reshape(-1, 3)
    table = table[np.isfinite(table).all(axis=1)]
    return Both(table[:, 0], table[:, 1], table[:, 2].astype(int))
