"""Arms judged on forgeries of a kind that training has not seen: runs, figures and tables of those protocols.

Every fold (`student.experiment.folds`) is trained with every arm and seed. An arm adds one thing to another, so each is
compared with the one that it adds to, on the same clips. Beside them stand the teachers' similarity and the best trivial
number. Within a source that has both classes in a test, real and forged clips are cut alike: such rows are the soundest.
"""

from __future__ import annotations

import json
import logging
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import store
from store import Reader
from store.dataset.spans import spans
from student.experiment import arms, judging
from student.experiment.arms import Arm
from student.experiment.asked import Asked, ExperimentError, Sizes
from student.experiment.folds import LEAST, Clips, Fold
from student.experiment.judging import FORGERIES, TRIM, TrialSet
from student.experiment.parts import Parts, write_splits
from student.experiment.runs import check_fit
from student.experiment.tables import TEACHERS, Result, Table, told
from student.experiment.trivial import Best, Numbers
from student.scoring import score
from student.scoring.metrics import auc
from student.scoring.paired import Interval, difference, drawn, mean_auc, quantiles

log = logging.getLogger(__name__)

ALONE, CORRELATION, CONTRASTIVE, SYNC, PSEUDO = "detection", "correlation", "contrastive", "sync", "pseudo-fakes"
PAIRS_ALONE = {"w_projection": 0.0}  # labels of pairs alone: synchronisation has no teachers' rows to learn
ARMS = (
    Arm(ALONE, "the detection term alone", {"w_correlation": 0.0, "w_contrastive": 0.0, **PAIRS_ALONE}),
    Arm(CORRELATION, "and the correlation term with soft labels", {"w_contrastive": 0.0, **PAIRS_ALONE}),
    Arm(CONTRASTIVE, "and the contrastive term", PAIRS_ALONE),
    Arm(
        SYNC,
        "the same three terms with labels of synchronisation in place of content",
        {"labels": "sync", **PAIRS_ALONE},
    ),
    Arm(
        PSEUDO,
        "the three terms with soft labels, and pseudo-fakes made of real clips",
        {"pseudo_share": 0.5, **PAIRS_ALONE},
    ),
)
PAIRS = ((CORRELATION, ALONE), (CONTRASTIVE, CORRELATION), (CONTRASTIVE, SYNC), (PSEUDO, CONTRASTIVE))
INTERVALS = (
    "AUC, mean over seeds, with its 95 % interval, the wider of two: drawing sources (corpora, where a clip's source is not "
    "known) and drawing people (clips, where fewer than ten people are known); then each seed. A difference is paired: "
    "every draw has the same sources, or people, in both arms. The mean over what is held out draws that, and in each its "
    "people. Intervals leave out the choice of seeds."
)


@dataclass(frozen=True)
class Judged:
    """A fold with its test and the scores of each arm on it, f8 [seeds, n]; `sources` [n] are drawn for intervals."""

    fold: Fold
    test: TrialSet
    sources: np.ndarray
    named: np.ndarray
    scores: Mapping[str, np.ndarray]

    def of(self, use: np.ndarray) -> Judged:
        """A part of the test, by a mask bool [n]."""
        places = np.flatnonzero(use)
        items = [self.test.items[k] for k in places]
        test = replace(self.test, items=items, groups=self.test.groups[use], tasks={}, clips=len(items))
        scores = {arm: values[:, use] for arm, values in self.scores.items()}
        return Judged(self.fold, test, self.sources[use], self.named[use], scores)

    @property
    def matched(self) -> dict[str, Judged]:
        """The sources of this test that have both classes."""
        parts = {name: self.of(self.named == name) for name in sorted(set(self.named.tolist()) - {""})}
        return {name: part for name, part in parts.items() if len(set(part.test.labels.tolist())) == 2}

    def auc(self, arm: str) -> Interval:
        """Mean AUC over seeds, by sources and by people."""
        found = [mean_auc(self.scores[arm], self.test.labels, by, draw_all=whole) for by, whole in self._ways]
        return _wider(*found)

    def apart(self, first: str, second: str) -> Interval:
        """The paired difference of two arms, by sources and by people."""
        a, b, labels = self.scores[first], self.scores[second], self.test.labels
        return _wider(*(difference(a, b, labels, by, draw_all=whole) for by, whole in self._ways))

    @property
    def _ways(self) -> list[tuple[np.ndarray, bool]]:
        return [(self.test.groups, False), *([(self.sources, True)] if len(set(self.sources.tolist())) > 1 else [])]


def _wider(one: Interval, *others: Interval) -> Interval:
    low, high = (f([getattr(x, side) for x in (one, *others)]) for f, side in ((np.nanmin, "low"), (np.nanmax, "high")))
    return replace(one, low=float(low), high=float(high))


def result(
    asked: Asked,
    question: str,
    made: Callable[[Clips, Sizes], tuple[list[Fold], dict[str, str]]],
    what: str,
    limits: list[str],
) -> Result:
    """Train every arm for every fold and judge it there. `what` is held out, in one word.

    Raises ExperimentError if the store has no soft labels or nothing can be held out.
    """
    reader = store.open(asked.stores[0])
    check_fit(reader)
    clips, every = Clips.of(reader), chosen(asked.arms)
    found, left = made(clips, asked.sizes)
    trained = _Trained(asked, reader)
    judged = [_judged(trained, every, fold) for fold in found]
    numbers = Numbers(reader)
    pairs = [pair for pair in PAIRS if {*pair} <= {arm.name for arm in every}]
    table, figures, mean = _table(asked, judged, numbers, [arm.name for arm in every], pairs, what)
    meanings = "; ".join(f"{arm.name}: {arm.meaning}" for arm in every)
    claim = [verdict(mean, what)] if (CORRELATION, ALONE) in pairs else []
    notes = [*claim, f"Arms: {meanings}.", INTERVALS, *_notes(clips, judged, left, numbers)]
    about = {
        "arms": {arm.name: arm.meaning for arm in every},
        "held_out": figures,
        "mean": mean,
        "left_out": left,
        "runs": trained.runs,
        "commit": _commit(),
    }
    return Result(question, [table], about, limits, tuple(notes))


def chosen(names: tuple[str, ...]) -> tuple[Arm, ...]:
    """The arms of those names, in the order of ARMS; all without names. Raises ExperimentError for an unknown one."""
    known = [arm.name for arm in ARMS]
    if unknown := sorted(set(names) - set(known)):
        raise ExperimentError(f"unknown arm {unknown[0]}; there is {', '.join(known)}")
    return tuple(arm for arm in ARMS if not names or arm.name in names)


def _commit() -> str:
    from pipelines.job.request import commit

    return commit()


# -- runs -----------------------------------------------------------------------------------------------------------------


class _Trained:
    """Detectors by training, arm and seed, each trained or found once, and what is told of their runs."""

    def __init__(self, asked: Asked, reader: Reader) -> None:
        self.asked, self.reader = asked, reader
        self.trim: str = arms.shared(asked).get("trim", TRIM)
        self.folders: dict[tuple[str, str, int], Path] = {}
        self.runs: list[dict[str, Any]] = []

    def folder(self, fold: Fold, arm: Arm, seed: int) -> Path:
        key = fold.training, arm.name, seed
        if key not in self.folders:
            chosen = Parts(fold.train, fold.val, np.zeros(0, np.int64), "")
            splits = write_splits(self.reader, chosen, self.asked.output)
            named = replace(arm, name=f"{arm.name}-without-{slug(fold.training)}")
            folder = arms.train(self.asked, named, seed, splits)
            results, config = (json.loads((folder / f"{name}.json").read_bytes()) for name in ("results", "config"))
            about = {"arm": arm.name, "seed": seed, "without": fold.training, "folder": str(folder)}
            self.runs.append({**about, "config": config["config"], "seconds": results["seconds"]})
            self.folders[key] = folder
        return self.folders[key]


def slug(name: str) -> str:
    """A name as a part of a folder's; two names never share one."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40]
    return plain if plain == name else f"{plain}-{zlib.crc32(name.encode(errors='surrogateescape')):08x}"


def _judged(trained: _Trained, every: tuple[Arm, ...], fold: Fold) -> Judged:
    reader = trained.reader
    items = score.trials(reader, fold.test, spans(reader, fold.test, trained.trim), 0, swaps=0, shifts=0)
    groups = np.array([str(reader.clips["group"][t.lips]) or str(t.lips) for t in items])
    test = TrialSet(fold.name, reader, items, groups, {FORGERIES: np.ones(len(items), bool)}, len(fold.test))
    if len(set(test.labels.tolist())) < 2:
        raise ExperimentError(f"{fold.name}: the clips to judge are too short to be scored in both classes")
    scores = {}
    for arm in every:
        of_seeds = []
        for seed in trained.asked.seeds:
            folder = trained.folder(fold, arm, seed)
            log.info("%s, seed %d: judging %s", arm.name, seed, fold.name)
            of_seeds.append(judging.student_scores(folder, [test])[0])
        scores[arm.name] = np.stack(of_seeds)
    scores[TEACHERS] = judging.teacher_scores([test])[0][None]
    named = np.array([str(reader.clips["source"][t.lips]) for t in items])
    corpora = np.array([str(reader.clips["corpus"][t.lips]) for t in items])
    return Judged(fold, test, np.where(named == "", corpora, named), named, scores)


# -- figures --------------------------------------------------------------------------------------------------------------


def _table(
    asked: Asked, judged: list[Judged], numbers: Numbers, every: list[str], pairs: list[tuple[str, str]], what: str
) -> tuple[Table, dict[str, Any], dict[str, Any]]:
    """The table, the figures of each fold, and those of the mean over folds."""
    rows, figures = [], {}
    for one in judged:
        cells, figures[one.fold.name] = _row(one, one.fold.name, numbers, every, pairs)
        rows.append(cells)
        within = {}
        for source, part in one.matched.items():
            cells, within[source] = _row(part, f"{one.fold.name}, within {source}", numbers, every, pairs)
            rows.append(cells)
        listed = {"listed": one.fold.listed, "chosen": one.test.clips, "scored": len(one.test.items)}
        trained = {"train": len(one.fold.train), "val": len(one.fold.val), "note": one.fold.note}
        figures[one.fold.name] |= {"coverage": listed, **trained, "within": within}
    mean = {"auc": {arm: _mean(judged, arm).to_json() for arm in every}}
    mean["difference"] = {f"{a} - {b}": _mean(judged, a, b).to_json() for a, b in pairs}
    if len(judged) > 1:
        aucs = [told(_mean(judged, arm)) for arm in every]
        rows.append(("mean", "", *aucs, "", "", *(told(_mean(judged, a, b), "+.3f") for a, b in pairs)))
    columns = (f"{what} held out", "real, forged", *every, TEACHERS, "best trivial number")
    title = f"{len(judged)} tests, {asked.sizes.steps} steps, {asked.sizes.seeds} seeds"
    return Table(title, (*columns, *(f"{a} minus {b}" for a, b in pairs)), rows), figures, mean


def _row(
    one: Judged, name: str, numbers: Numbers, every: list[str], pairs: list[tuple[str, str]]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    labels = one.test.labels
    known = [arm for arm in (*every, TEACHERS) if np.isfinite(one.scores[arm]).all()]
    aucs = {arm: one.auc(arm) for arm in known}
    apart = {f"{a} - {b}": one.apart(a, b) for a, b in pairs}
    best = numbers.strongest([t.lips for t in one.test.items])
    counts = int((labels == 0).sum()), int((labels == 1).sum())
    cells = [told(aucs[arm]) if arm in aucs else "-" for arm in (*every, TEACHERS)]
    differences = [told(value, "+.3f") for value in apart.values()]
    figures = {
        "real": counts[0],
        "forged": counts[1],
        "sources": len(set(one.named.tolist()) - {""}),
        "people": len(set(one.test.groups.tolist())),
        "auc": {arm: value.to_json() for arm, value in aucs.items()},
        "difference": {pair: value.to_json() for pair, value in apart.items()},
        "trivial": best.to_json() if best else None,
    }
    return (name, f"{counts[0]}, {counts[1]}", *cells, _trivial(best), *differences), figures


def _trivial(best: Best | None) -> str:
    return f"{best.auc:.3f} ({best.low:.3f} to {best.high:.3f}) {best.number}" if best else "-"


def _mean(judged: list[Judged], first: str, second: str = "") -> Interval:
    """Mean over folds of an arm's AUC, or of the difference of two; its interval draws folds and in each its people."""
    each = [one.apart(first, second) if second else one.auc(first) for one in judged]
    seeds = list(zip(*(value.by_seed for value in each), strict=True))
    draws = np.stack([_draws(one, first, second) for one in judged])
    picked = np.random.default_rng(0).integers(len(judged), size=(len(judged), draws.shape[1]))
    taken = draws[picked, np.arange(draws.shape[1])]
    low, high = quantiles(taken.mean(0))
    value = float(np.mean([one.value for one in each]))
    return Interval(value, min(low, value), max(high, value), tuple(float(np.mean(values)) for values in seeds))


def _draws(one: Judged, first: str, second: str) -> np.ndarray:
    """The AUC, or the difference, in each draw of people, f8 [draws]; the figure itself where a draw lacks a class."""
    names = [first, second] if second else [first]
    found = [drawn(one.scores[name], one.test.labels, one.test.groups).mean(0) for name in names]
    values = found[0] - found[1] if second else found[0]
    whole = [np.mean([auc(row, one.test.labels) for row in one.scores[name]]) for name in names]
    return np.where(np.isfinite(values), values, whole[0] - whole[1] if second else whole[0])


# -- words ----------------------------------------------------------------------------------------------------------------


def verdict(mean: Mapping[str, Any], what: str) -> str:
    """The answer to the paper's claim, from the mean over folds: yes, no, or not shown."""
    gain, found = mean["difference"][f"{CORRELATION} - {ALONE}"], mean["auc"][CORRELATION]
    figure = f"{gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f}), AUC {found['value']:.3f} with it"
    answer = "not shown"
    if gain["high"] < 0:
        answer = "no, it harms"
    elif gain["low"] > 0:
        answer = "yes" if found["low"] > 0.5 else "no: better than without it, but not better than chance"
    where = "forgeries of sources" if what == "source" else "forgery types"
    answer = answer[0].upper() + answer[1:]
    return f"Does learning correlation generalise to {where} that training has not seen? {answer}: {figure}."


def _notes(clips: Clips, judged: list[Judged], left: Mapping[str, str], numbers: Numbers) -> list[str]:
    found = []
    if not any(len(set(clips.is_fake[clips.corpus == name].tolist())) == 2 for name in np.unique(clips.corpus)):
        found.append(
            "Real and forged clips are of different corpora, so any difference of corpora may stand behind a figure."
        )
    for one in judged:
        short = one.test.clips - len(one.test.items)
        coverage = f"{one.fold.name}: {len(one.test.items)} of {one.fold.listed} clips scored"
        said = [coverage, f"{short} too short" if short else "", one.fold.note]
        said += [f"trained on {len(one.fold.train)}, validated on {len(one.fold.val)}"]
        found.append("; ".join(part for part in said if part) + ".")
    if left:
        found.append("Not held out: " + "; ".join(f"{name} ({why})" for name, why in left.items()) + ".")
    if not any(one.matched for one in judged):
        found.append(f"No source has both classes in a test (with {LEAST} clips or fewer it would say little).")
    return found
