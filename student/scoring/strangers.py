"""What strangers score by a detector: its validation trials of people whom training had not seen, kept with it.

A score is minus the logit, so that a higher one is more like a real video. Trials are kept by length: from each length
on up to the next, or several together where one alone has too few people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from store.similarity import grounds
from store.similarity.grounds import LEAST
from store.similarity.limits import Scores
from store.similarity.strangers import PEOPLE, Length, Strangers
from student.scoring.score import Trial

LENGTHS = (10, 25, 50, 75, 125, 250, 500, 1000)  # frames


def measured(
    clips: Mapping[str, np.ndarray], train: np.ndarray, trials: Sequence[Trial], logits: np.ndarray
) -> Strangers | None:
    """From a store's clips, the rows [n] that training used, and scored trials with labels of both classes; None if too
    few of their people are named and were not in training."""
    taught = grounds.taught(clips["identities"], train)
    names = grounds.people(clips["identities"])
    rows = {trial.lips for trial in trials} | {trial.sound for trial in trials}
    known = {row for row in rows if grounds.taught(clips["identities"], [row]) & taught or not names[row]}
    new = [k for k, trial in enumerate(trials) if not {trial.lips, trial.sound} & known]
    found: list[Length] = []
    waiting: list[int] = []
    for least, most in zip(reversed(LENGTHS), [None, *reversed(LENGTHS[1:])], strict=True):
        waiting += [k for k in new if least <= trials[k].length and (most is None or trials[k].length < most)]
        if length := _length(least, [trials[k] for k in waiting], -logits[waiting], names):
            found.append(length)
            waiting = []
    if not found:
        return None
    if waiting:  # shorter ones, too few alone
        shortest = found.pop()
        both = waiting + [k for k in new if trials[k].length >= shortest.frames and _below(found, trials[k])]
        least = max(n for n in LENGTHS if n <= min(trials[k].length for k in both))
        found.append(_length(least, [trials[k] for k in both], -logits[both], names) or shortest)
    corpora = sorted({str(clips["corpus"][trials[k].lips]) for k in new})
    return Strangers(PEOPLE, False, tuple(corpora), tuple(reversed(found)))


def _below(found: Sequence[Length], trial: Trial) -> bool:
    return not found or trial.length < found[-1].frames


def _length(frames: int, trials: Sequence[Trial], scores: np.ndarray, names: Sequence[str]) -> Length | None:
    """Scores of real pairs and of fakes; None with too few people in real ones, or no fakes. A verdict "fake" rests on the
    real ones alone; whether fakes are enough for "real", the limits say."""
    kinds = []
    for label, least in ((0, LEAST), (1, 1)):
        mine = [k for k, trial in enumerate(trials) if trial.label == label]
        people = [names[trials[k].lips] for k in mine]
        if len(set(people)) < least:
            return None
        kinds.append(Scores.of(scores[mine], people, len({(trials[k].lips, trials[k].sound) for k in mine})))
    return Length(frames, kinds[0], kinds[1])
