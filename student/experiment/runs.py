"""Trains arms, judges them, and compares them: what the experiments with a student share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import store
from store import Reader
from student.experiment import arms, judging
from student.experiment.arms import Arm
from student.experiment.asked import Asked, ExperimentError
from student.experiment.judging import TrialSet
from student.experiment.parts import Parts, parts, write_splits
from student.experiment.tables import INTERVALS, TEACHERS, Result, Table, compared

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A comparison of arms: its table, figures, and notes on the data."""

    table: Table
    figures: dict[str, Any]
    notes: tuple[str, ...]


def check_fit(reader: Reader) -> None:
    """Raises ExperimentError if the store has no soft labels."""
    if reader.fit is None:
        raise ExperimentError(
            f"{reader.path} has no fit, so it has no soft labels: run python precompute.py --store {reader.path} --refit "
            "where clips are known to be real, else with --fit-from"
        )


def of_arms(
    asked: Asked, every: Sequence[Arm], tasks: Sequence[str], pairs: Sequence[tuple[str, str]], teachers: bool = True
) -> Found:
    """Train every arm on the first store with every seed, and judge all on every store."""
    reader = store.open(asked.stores[0])
    chosen = parts(reader, asked.sizes)
    sets = all_sets(asked, chosen, tasks)
    scores = scored(asked, every, chosen, sets)
    if teachers:
        scores[TEACHERS] = [values[None] for values in judging.teacher_scores(sets)]
    title = f"{len(chosen.train)} training clips, {asked.sizes.steps} steps, {asked.sizes.seeds} seeds"
    table, figures = compared(title, sets, scores, pairs)
    about = {"arms": {arm.name: arm.meaning for arm in every}, "judged": figures, "held_out": chosen.held_out}
    meanings = "; ".join(f"{arm.name}: {arm.meaning}" for arm in every)
    notes = (
        INTERVALS,
        f"Arms: {meanings}.",
        f"Held out of {asked.stores[0]}: {chosen.held_out}.",
        seen(reader, chosen),
    )
    return Found(table, about, tuple(note for note in notes if note))


def result(
    asked: Asked,
    question: str,
    every: Sequence[Arm],
    tasks: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    limits: list[str],
) -> Result:
    """What training every arm on the first store and judging all on every store answers. Raises ExperimentError if the
    first has no soft labels."""
    check_fit(store.open(asked.stores[0]))
    found = of_arms(asked, every, tasks, pairs)
    return Result(question, [found.table], found.figures, limits, found.notes)


def all_sets(asked: Asked, chosen: Parts, tasks: Sequence[str]) -> list[TrialSet]:
    """The test sets of all stores: the held-out clips of the first, all labelled clips of the others."""
    sets = judging.trial_sets(asked.stores[0], chosen.test, asked.sizes.judged, tasks)
    for path in asked.stores[1:]:
        sets += judging.trial_sets(path, None, asked.sizes.judged, tasks)
    if not sets:
        raise ExperimentError(
            f"no clip of {', '.join(asked.stores)} can be judged: two real clips of a corpus, long enough, are needed"
        )
    return distinct(sets)


def distinct(sets: Sequence[TrialSet]) -> list[TrialSet]:
    """The sets with names that differ: where several stores have a corpus of one name, with the store's."""
    names = [one.name for one in sets]
    named = [
        replace(one, name=f"{one.name} of {Path(str(one.reader.path)).name}") if names.count(one.name) > 1 else one
        for one in sets
    ]
    again = [one.name for one in named]
    return [replace(one, name=f"{one.name} ({k})") if again.count(one.name) > 1 else one for k, one in enumerate(named)]


def scored(asked: Asked, every: Sequence[Arm], chosen: Parts, sets: Sequence[TrialSet]) -> dict[str, list[np.ndarray]]:
    """Scores of each arm: for each test set, [seeds, n]."""
    splits = write_splits(store.open(asked.stores[0]), chosen, asked.output)
    found: dict[str, list[list[np.ndarray]]] = {arm.name: [] for arm in every}
    for seed in asked.seeds:
        for arm in every:
            folder = arms.train(asked, arm, seed, splits)
            log.info("%s, seed %d: judging", arm.name, seed)
            found[arm.name].append(judging.student_scores(folder, sets))
    return {name: [np.stack(each) for each in zip(*by_seed, strict=True)] for name, by_seed in found.items()}


def seen(reader: Reader, chosen: Parts) -> str:
    """A sentence on what the fit behind the teachers' figures has seen; "" where it has seen nothing that is judged."""
    split = reader.clips["split"].astype(str)
    taught = int(np.isin(split[chosen.test], ("", "train")).sum())
    note = reader.attrs.get("similarity") or {}
    if not taught or "fit_from" in note:
        return ""
    return (
        f"The fit of the store may have learned from {taught} of the {len(chosen.test)} held-out clips, which are marked "
        "train: there the teachers' figures are too good, and so may be those of arms with their labels."
    )
