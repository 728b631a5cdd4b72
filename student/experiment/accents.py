"""accents: a fit, and a student, from one corpus judged on others of other languages, accents and cameras.

For each corpus with enough real clips the teachers' two embeddings are fitted anew, on its clips that are not judged, and
every fit is judged on the held-out clips of every corpus: own sound against another clip's over 5 frames, a second and
the clip. Uncalibrated scores are compared, so an AUC says how well pairs are ranked, not how right their probabilities
are. A student is trained on each corpus whose store has soft labels.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import store
from concord.text import counted
from store import Reader, layout, similarity
from store.similarity import Fit
from student.experiment import arms, judging, runs
from student.experiment.arms import Arm
from student.experiment.asked import Asked, ExperimentError
from student.experiment.judging import SHIFTS, SWAPS
from student.experiment.parts import HELD_OUT, Parts, evenly, hold_out, write_splits
from student.experiment.tables import INTERVALS, Result, Table, compared, told
from student.scoring.paired import mean_auc

log = logging.getLogger(__name__)

FEW = 20  # real clips: with fewer a corpus is judged, not fitted
OTHERS = 2  # other clips whose sound each clip gets
WINDOWS = {"5": "5 frames", "25": "1 s", "clip": "clip"}

QUESTION = "does what one corpus teaches hold for other languages, accents and cameras?"
LIMITS = [
    "which difference matters: corpora differ in language, speakers, cameras, length of clips and cutting all at once",
    "the same people in two languages",
    "calibrated probabilities and decisions: only ranks are compared",
]


@dataclass(frozen=True)
class Corpus:
    """Real clips of one corpus of a store: rows to fit or train on, rows that are judged, and how these were chosen."""

    name: str
    path: str
    reader: Reader
    taught: np.ndarray
    judged: np.ndarray
    held_out: str

    @property
    def teaches(self) -> bool:
        return len(self.taught) >= FEW


def here(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], gpu: bool = False) -> Iterable[Any]:
    """Jobs of a fit run one after another in this process (`pipelines.workers.cluster.Spread`)."""
    return (function(*job) for job in jobs)


def corpora(asked: Asked) -> list[Corpus]:
    """Those of all stores with at least two real clips to judge. Raises ExperimentError if there is only one, or if
    none can be fitted."""
    found = []
    for path in asked.stores:
        reader = store.open(path)
        c = reader.clips
        real = np.flatnonzero((np.asarray(c["done"]) == 1) & (np.asarray(c["label"]) == 0))
        for name in np.unique(c["corpus"][real].astype(str)):
            of = real[c["corpus"][real].astype(str) == name]
            test, note = c["split"][of].astype(str) == "test", "clips marked test"
            if not test.any():
                groups = np.array([str(c["group"][row]) or str(row) for row in of])
                test, by = hold_out(groups, HELD_OUT)
                note = f"a fifth, held out by {by}"
            taught, judged = of[~test], of[test]
            if len(judged) >= 2:
                sizes = asked.sizes
                found.append(
                    Corpus(str(name), path, reader, evenly(taught, sizes.clips), evenly(judged, sizes.judged), note)
                )
    if len(found) < 2 or not any(corpus.teaches for corpus in found):
        raise ExperimentError(
            f"the stores have {counted(len(found), 'corpus', 'corpora')} with real clips to judge and "
            f"{sum(corpus.teaches for corpus in found)} with {FEW} more to learn from; two and one are needed: name another "
            "--store"
        )
    return [
        replace(one, name=f"{one.name} of {Path(one.path).name}")
        if [c.name for c in found].count(one.name) > 1
        else one
        for one in found
    ]


def run(asked: Asked) -> Result:
    """Fit on each corpus and judge on all; the same with a student. Raises ExperimentError if corpora are too few."""
    every = corpora(asked)
    tables, figures = _fits(asked, every)
    students, by_student = _students(asked, every) if asked.students else ([], {})
    about = "; ".join(
        f"{c.name}: {len(c.taught)} clips to learn from, {len(c.judged)} judged ({c.held_out})" for c in every
    )
    notes = (INTERVALS, f"Corpora: {about}.")
    return Result(QUESTION, [*tables, *students], {"fits": figures, "students": by_student}, LIMITS, notes)


# -- the teachers' fit ----------------------------------------------------------------------------------------------------


def _fits(asked: Asked, every: Sequence[Corpus]) -> tuple[list[Table], dict[str, Any]]:
    """A table for each window, one row for each corpus that was fitted."""
    from pipelines.labels import learn

    cells: dict[str, list[tuple[str, ...]]] = {window: [] for window in WINDOWS}
    figures: dict[str, Any] = {}
    for taught in (corpus for corpus in every if corpus.teaches):
        fits = []
        for seed in asked.seeds if asked.kind != "cca" else range(1):
            log.info("fitting %s on %s, seed %d", asked.kind, taught.name, seed)
            found, _ = learn.from_clips(taught.reader.place, taught.taught, here, asked.kind, seed)
            if found is None:
                raise ExperimentError(f"{taught.name} has too few frames with face and voice for a fit of {asked.kind}")
            fits.append(found.fit)
        figures[taught.name] = {}
        for judged in every:
            scores = [own_against_others(judged.reader, judged.judged, fit) for fit in fits]
            figures[taught.name][judged.name] = {}
            for window in WINDOWS:
                labels, groups = scores[0][window][1:]
                auc = mean_auc(np.stack([each[window][0] for each in scores]), labels.astype(int), groups)
                figures[taught.name][judged.name][window] = auc.to_json()
        for window in WINDOWS:
            row = [judged_cell(figures[taught.name][judged.name][window]) for judged in every]
            cells[window].append((taught.name, *row))
    columns = ("fitted on", *(f"judged on {corpus.name}" for corpus in every))
    title = f"AUC of own sound against another clip's, teachers' fit ({asked.kind}), "
    return [Table(title + what, columns, cells[window]) for window, what in WINDOWS.items()], figures


def judged_cell(figure: dict[str, Any]) -> str:
    """The text of an AUC that was made plain for JSON."""
    from student.scoring.paired import Interval

    return told(Interval(**figure))


def own_against_others(
    reader: Reader, rows: np.ndarray, fit: Fit
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """By window: scores f4 [n] of frames with face and voice (of clips for "clip"), whether the sound is the clip's own
    bool [n], and the group of the lips [n].

    Others are OTHERS clips by rotation, of another group where there is one.
    """
    from pipelines.labels import projection

    to_vsr, to_asr = projection.maps(fit)
    lips, sound, flags = [], [], []
    for row in rows.tolist():
        got = reader.frames(row, 0, int(reader.clips["length"][row]), ["vsr", "asr", "flags"])
        lips.append(projection.half(to_vsr(got["vsr"], got["flags"])))
        sound.append(projection.half(to_asr(got["asr"], got["flags"])))
        flags.append(got["flags"])
    groups = [str(reader.clips["group"][row]) or str(row) for row in rows]
    found: dict[str, list[tuple[np.ndarray, bool, str]]] = {window: [] for window in WINDOWS}
    for i in range(len(rows)):
        for j in (i, *others(i, groups)):
            length = min(len(flags[i]), len(flags[j]))
            mask = layout.labelled(flags[i][:length], flags[j][:length])
            if not mask.any():
                continue
            for window in WINDOWS:
                s = similarity.scores(lips[i][:length], sound[j][:length], fit, window, mask)
                found[window].append((s[:1] if window == "clip" else s[mask], i == j, groups[i]))
    out = {}
    for window, parts in found.items():
        sizes = [len(s) for s, _, _ in parts]
        own, group = np.array([o for _, o, _ in parts]), np.array([g for _, _, g in parts])
        out[window] = np.concatenate([s for s, _, _ in parts]), np.repeat(own, sizes), np.repeat(group, sizes)
    return out


def others(i: int, groups: Sequence[str]) -> list[int]:
    """Up to OTHERS clips whose sound clip i gets: from half a corpus away on, those of other groups first."""
    count = len(groups)
    order = [(i + count // 2 + k) % count for k in range(count)]
    order = [j for j in order if j != i]
    order.sort(key=lambda j: groups[j] == groups[i])
    return order[:OTHERS]


# -- students -------------------------------------------------------------------------------------------------------------


def _students(asked: Asked, every: Sequence[Corpus]) -> tuple[list[Table], dict[str, Any]]:
    """One table: a student for each corpus that teaches and whose store has soft labels."""
    sets = [
        one
        for corpus in every
        for one in judging.trial_sets(corpus.path, corpus.judged, asked.sizes.judged, (SWAPS, SHIFTS))
    ]
    sets = runs.distinct(sets)
    scores: dict[str, list[np.ndarray]] = {}
    for corpus in every:
        if not corpus.teaches or corpus.reader.fit is None or not sets:
            continue
        rows = corpus.taught
        val, by = hold_out(np.array([str(corpus.reader.clips["group"][row]) or str(row) for row in rows]), 0.1)
        some = Parts(rows[~val], evenly(rows[val], 30), corpus.judged, by)
        splits = write_splits(corpus.reader, some, asked.output)
        arm = Arm(re.sub(r"[^\w.-]+", "-", corpus.name), f"trained on {corpus.name}", store=corpus.path)
        by_seed = [judging.student_scores(arms.train(asked, arm, seed, splits), sets) for seed in asked.seeds]
        scores[f"trained on {corpus.name}"] = [np.stack(each) for each in zip(*by_seed, strict=True)]
    if not scores:
        return [], {}
    table, figures = compared(
        f"AUC of students ({asked.model}, {asked.sizes.steps} steps, {asked.sizes.seeds} seeds)", sets, scores, []
    )
    return [table], figures
