"""corrupted: where bad sound and pictures mislead the teachers, a student may be misled that learned from their labels.

The chosen clips go through the whole pipeline again with corrupted picture and sound (`corrupting`), so there are two
labels for the same corrupted input: what the teachers make of it, and what they made of the clean clip. Three arms learn
from corrupted inputs (labels of corrupted clips, of clean clips, none), one from clean clips. All are judged on held-out
clips, clean and corrupted, and on the pairs that the teachers order wrongly: there a student that only repeats them is
right less often than by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import store
from student.experiment import corrupting, judging, runs
from student.experiment.arms import Arm
from student.experiment.asked import Asked
from student.experiment.judging import SHIFTS, SWAPS, TrialSet
from student.experiment.parts import Parts, evenly, parts
from student.experiment.tables import INTERVALS, TEACHERS, Result, Table, compared, told
from student.scoring.paired import mean_auc, mean_share, share_difference

TRIM = "none"  # noise changes where voices are found, and the windows must not depend on it
CLEAN, RIGHT, THEIRS, NONE = "clean", "right-labels", "their-labels", "no-labels"
PAIRS = [(THEIRS, RIGHT), (THEIRS, NONE), (RIGHT, NONE)]

QUESTION = "where bad sound and pictures mislead the teachers, does a student that learned from their labels do better?"
LIMITS = [
    "corruptions of other kinds and strengths; each clip has one of the picture and one of the sound",
    "labels that are wrong for other reasons than corruption, such as faces and languages that the fit has not seen",
    "a fit learned from corrupted clips: the maps and their calibration are those of the clean store",
]


def run(asked: Asked) -> Result:
    """Corrupt clips of the first store, train four arms and judge them. Raises ExperimentError without soft labels."""
    reader = store.open(asked.stores[0])
    runs.check_fit(reader)
    chosen = _real(parts(reader, asked.sizes), np.asarray(reader.clips["label"]), asked.sizes.judged)
    rows = np.unique(np.r_[chosen.train, chosen.val, chosen.test])
    made = corrupting.make(reader, rows, asked.output / "corrupted", asked.corruptions)
    done = np.asarray(store.open(made.theirs).clips["done"]) == 1
    chosen = replace(
        chosen,
        train=chosen.train[done[chosen.train]],
        val=chosen.val[done[chosen.val]],
        test=chosen.test[done[chosen.test]],
    )
    plain = judging.trial_sets(asked.stores[0], chosen.test, asked.sizes.judged, (SWAPS, SHIFTS), TRIM)
    corrupted = [replace(one, name=f"{one.name}, corrupted", reader=store.open(made.theirs)) for one in plain]
    sets = [*(replace(one, name=f"{one.name}, clean") for one in plain), *corrupted]
    scores = runs.scored(asked, _arms(made), chosen, sets)
    scores[TEACHERS] = [values[None] for values in judging.teacher_scores(sets)]
    title = f"{len(chosen.train)} training clips, {asked.sizes.steps} steps, {asked.sizes.seeds} seeds"
    table, figures = compared(title, sets, scores, PAIRS)
    after = {arm: values[len(plain) :] for arm, values in scores.items()}
    errs, by_error = misled(corrupted, after)
    kinds, by_kind = _by_kind(corrupted, after, made)
    about = {"judged": figures, "misled": by_error, "kinds": by_kind, "lost": made.lost, "clips": len(rows)}
    notes = (
        INTERVALS,
        "; ".join(f"{arm.name}: {arm.meaning}" for arm in _arms(made)) + ".",
        f"Held out: {chosen.held_out}. In {made.lost} of {len(rows)} corrupted clips no face was found; they are left out of "
        "all arms.",
        runs.seen(reader, chosen),
    )
    return Result(QUESTION, [table, errs, kinds], about, LIMITS, tuple(note for note in notes if note))


def _real(chosen: Parts, labels: np.ndarray, judged: int) -> Parts:
    """The parts with real clips alone, at most `judged` of them judged."""
    train, val, test = (rows[labels[rows] == 0] for rows in (chosen.train, chosen.val, chosen.test))
    return replace(chosen, train=train, val=val, test=evenly(test, judged))


def _arms(made: corrupting.Corrupted) -> tuple[Arm, ...]:
    base, alone = {"trim": TRIM}, {"trim": TRIM, "w_correlation": 0.0, "w_contrastive": 0.0}
    return (
        Arm(CLEAN, "clean inputs, their labels", base),
        Arm(RIGHT, "corrupted inputs, labels of the clean clips", base, str(made.right)),
        Arm(THEIRS, "corrupted inputs, labels that the teachers give them", base, str(made.theirs)),
        Arm(NONE, "corrupted inputs, the detection term alone", alone, str(made.theirs)),
    )


def misled(sets: Sequence[TrialSet], scores: Mapping[str, Sequence[np.ndarray]]) -> tuple[Table, dict[str, Any]]:
    """How often each arm orders a made pair and its twin rightly, where the teachers err and where they do not.

    A pair is right if the forgery scores higher than the same lips with their own sound; a tie is an error.
    """
    names = [arm for arm in scores if arm != TEACHERS]
    rows, figures = [], {}
    for k, one in enumerate(sets):
        fakes, twins = pairs_of(one)
        right = {arm: values[k][:, fakes] > values[k][:, twins] for arm, values in scores.items()}
        for task, mask in one.tasks.items():
            for what, use in (("err", ~right[TEACHERS][0]), ("are right", right[TEACHERS][0])):
                use = use & mask[fakes]
                groups = one.groups[fakes][use]
                share = {arm: mean_share(right[arm][:, use], groups) for arm in names}
                apart = {f"{a} - {b}": share_difference(right[a][:, use], right[b][:, use], groups) for a, b in PAIRS}
                cells = [*(told(share[arm]) for arm in names), *(told(x, "+.3f") for x in apart.values())]
                rows.append((f"{one.name}: {task} where the teachers {what}", str(int(use.sum())), *cells))
                figures[f"{one.name}: {task}, teachers {what}"] = {
                    "pairs": int(use.sum()),
                    "right": {arm: value.to_json() for arm, value in share.items()},
                    "difference": {name: value.to_json() for name, value in apart.items()},
                }
    columns = ("share of pairs in the right order", "pairs", *names, *(f"{a} minus {b}" for a, b in PAIRS))
    return Table("where the teachers err (.5 = by chance, 0 = their errors repeated)", columns, rows), figures


def pairs_of(one: TrialSet) -> tuple[np.ndarray, np.ndarray]:
    """Positions i8 [m] of the made forgeries of a test set, and of their twins."""
    at = {t.id: n for n, t in enumerate(one.items)}
    fakes = [n for n, t in enumerate(one.items) if t.label == 1 and f"{t.id}|own" in at]
    return np.array(fakes, int), np.array([at[f"{one.items[n].id}|own"] for n in fakes], int)


def _by_kind(
    sets: Sequence[TrialSet], scores: Mapping[str, Sequence[np.ndarray]], made: corrupting.Corrupted
) -> tuple[Table, dict[str, Any]]:
    """AUC of swaps and shifts together by what was done to the picture, or to the sound that is heard."""
    rows, figures = [], {}
    for k, one in enumerate(sets):
        shown = np.array([made.picture[t.lips] for t in one.items])
        heard = np.array([made.sound[t.sound] for t in one.items])
        for side, of in (("picture", shown), ("sound", heard)):
            for kind in sorted(set(of.tolist()) - {""}):
                use = of == kind
                labels = one.labels[use]
                if len(np.unique(labels)) < 2:
                    continue
                auc = {arm: mean_auc(values[k][:, use], labels, one.groups[use]) for arm, values in scores.items()}
                cells = [f"{x.value:.3f} ({x.low:.3f} to {x.high:.3f})" for x in auc.values()]
                rows.append((f"{one.name}: {side}, {kind}", str(len(labels)), *cells))
                figures[f"{one.name}: {side}, {kind}"] = {arm: value.to_json() for arm, value in auc.items()}
    return Table("by corruption, AUC of swaps and shifts together", ("corruption", "trials", *scores), rows), figures
