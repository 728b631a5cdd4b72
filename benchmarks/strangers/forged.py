"""Real against forged clips: how well similarity, its margin and a student rank them, by method and within a source.

Only corpora with both real and forged clips are compared; where no corpus has both, all clips are, and the report says so. A
source that has both is a matched set: the same people, cut alike. Beside every figure stands the best trivial number on the
same clips. `low` and `high` draw people; `sources` has the interval that draws sources, for clips of other sources.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.strangers import figures, trivial
from benchmarks.strangers.figures import Values
from benchmarks.strangers.listed import Listed
from store.similarity.intervals import auc_by_cluster

SCORERS = {
    "similarity": "lips and voice disagree",
    "margin": "no offset stands out",
    "student": "the student's logit",
    "both": "the student's logit and half the margin, each by its deviation over the clips",
}
HALF = 0.5  # of the margin beside the student: chosen on other clips, before this yardstick was made
ALL = "all"


@dataclass(frozen=True)
class Ranked:
    """Labelled clips with both classes, their scores f8 [n] by scorer (higher = fake, NaN = not known) and their trivial
    numbers; `mixed`: real and forged clips are of different corpora."""

    listed: Sequence[Listed]
    scores: Mapping[str, np.ndarray]
    numbers: Sequence[dict[str, float | str]]
    mixed: bool = False

    def of(self, chosen: np.ndarray) -> Ranked:
        """A part, by a mask bool [n]."""
        places = np.flatnonzero(chosen)
        return Ranked(
            [self.listed[k] for k in places],
            {name: values[places] for name, values in self.scores.items()},
            [self.numbers[k] for k in places],
            self.mixed,
        )

    def with_score(self, name: str, values: np.ndarray) -> Ranked:
        """The same with one more score f8 [n]."""
        return replace(self, scores={**self.scores, name: values})

    @property
    def is_fake(self) -> np.ndarray:
        return np.array([one.is_forged for one in self.listed], bool)

    @property
    def has_both(self) -> bool:
        return bool(self.is_fake.any() and not self.is_fake.all())

    @property
    def methods(self) -> list[str]:
        """Names of the methods, sorted."""
        return sorted({one.method for one in self.listed if one.is_forged})

    @property
    def matched(self) -> dict[str, Ranked]:
        """The sources that have both classes, sorted by name."""
        source = np.array([one.source for one in self.listed], object)
        parts = {str(name): self.of(source == name) for name in sorted(set(source.tolist()) - {""})}
        return {name: part for name, part in parts.items() if part.has_both}


def comparable(ranked: Ranked) -> Ranked:
    """The clips of corpora with both classes; all, marked as mixed, if no corpus has both."""
    known = np.array([one.is_real or one.is_forged for one in ranked.listed], bool)
    ranked = ranked.of(known)
    fake, corpus = ranked.is_fake, np.array([one.row.corpus for one in ranked.listed], object)
    of_both = [name for name in set(corpus.tolist()) if len(set(fake[corpus == name].tolist())) == 2]
    if of_both:
        return ranked.of(np.isin(corpus.astype(str), of_both))
    return Ranked(ranked.listed, ranked.scores, ranked.numbers, mixed=ranked.has_both)


def both(logit: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """Late fusion f8 [n] of a student's logits [n] and the teachers' margin as a score [n] (higher = fake): each divided by
    its deviation over all the clips, whatever their labels, the margin with the weight HALF. A margin that is not known
    (NaN) counts as the mean."""
    return _standard(logit) + HALF * np.nan_to_num(_standard(margin))


def _standard(x: np.ndarray) -> np.ndarray:
    known = x[np.isfinite(x)]
    if not len(known):
        return x
    return np.asarray((x - known.mean()) / max(float(known.std()), 1e-9))


def told(ranked: Ranked, by: str) -> dict[str, Any]:
    """The figures of every scorer; those of the scorer `by` also stand on top."""
    scorers = {name: _of_scorer(ranked, name) for name in ranked.scores}
    return {"by": by, **scorers[by], "mixed_corpora": ranked.mixed, "scorers": scorers}


def _of_scorer(ranked: Ranked, name: str) -> dict[str, Any]:
    sources = {}
    for source, part in ranked.matched.items():
        sources[source] = {**_figure(part, name), "methods": _by_method(part, name)}
    return {**_figure(ranked, name), "methods": _by_method(ranked, name), "by_source": sources}


def _by_method(ranked: Ranked, name: str) -> dict[str, Any]:
    return {method: _figure(ranked, name, method) for method in ranked.methods}


def _figure(ranked: Ranked, name: str, method: str = ALL) -> dict[str, Any]:
    """AUC of the forged clips of a method against all real ones."""
    values, fake = ranked.scores[name], ranked.is_fake
    person = _numbers([one.person for one in ranked.listed])
    chosen = fake & np.array([method in (ALL, one.method) for one in ranked.listed], bool)
    known = np.isfinite(values)
    every = Values(values, person)
    told = figures.auc(every.of(chosen & known), every.of(~fake & known)).told("forged", "real")
    used = (chosen | ~fake) & known
    source = np.array([one.source for one in ranked.listed], object)
    count = len(set(source[used].tolist()) - {""})
    low, high = math.nan, math.nan
    if count > 1:
        low, high = auc_by_cluster(values[used], fake[used], source[used].astype(str), draws=figures.DRAWS)
    return {**told, "sources": {"count": count, "low": low, "high": high}}


def baselines(ranked: Ranked, draws: int = figures.DRAWS) -> dict[str, Any]:
    """The best trivial number for all forged clips, for each method, and within each matched set; None where no number is
    known for both classes."""
    found = _best(ranked, draws)
    return {
        "strongest": found.pop(ALL, None),
        "methods": found,
        "by_source": {source: _best(part, draws).get(ALL) for source, part in ranked.matched.items()},
    }


def _best(ranked: Ranked, draws: int) -> dict[str, Any]:
    if not ranked.has_both:
        return {}
    found = trivial.best(ranked.listed, ranked.numbers, draws)
    return {name: best.to_json() for name, best in found.items()}


def _numbers(names: Sequence[str]) -> np.ndarray:
    return np.unique(np.array(names, object).astype(str), return_inverse=True)[1] if len(names) else np.zeros(0, int)
