"""The protocol `leave-one-source-out`: validation and test on clips of sources that training has not seen.

A source is where a clip is from (`Row.source`: a page, a channel, a data set); clips whose list does not say are of their
corpus. Whole sources go to the test, the one that is named, one of FOLDS folds that are equally large as far as sources
allow, or none (a detector for use, whose test is clips from elsewhere), and others to validation. No person is on two
sides: clips for training with people of validation or test, and clips for validation with people of the test, are left
out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import Row
from pipelines.manifest import people
from store.similarity import grounds

FOLDS = 5
NO_TEST = "none"
VALIDATION = 0.1  # share of the real, or of the forged, clips that are not for the test
BIG = 0.5  # share of clips above which a group links everybody: then its people are told apart by name
NAMED = 9  # sources that an error names


def of(row: Row) -> str:
    """The source of a clip, or its corpus if the list does not say."""
    return row.source or row.corpus


def made(rows: list[Row], options: Any, rng: np.random.Generator) -> Any:
    """Splits by id, reasons of clips without one, and notes, as every protocol gives them (`protocols.Made`). Raises
    ManifestError for fewer than two sources, or a source or fold that there is not."""
    size = Counter(map(of, rows))
    if len(size) < 2:
        raise ManifestError(f"leave-one-source-out needs clips of two sources; all are of {next(iter(size), 'none')}")
    test = _tested(size, options.leave_out, rng)
    val = _validated([row for row in rows if of(row) not in test], rng)
    keys = _keys(rows)
    in_test, in_val = ({key for row in rows if of(row) in some for key in keys[row.id]} for some in (test, val))
    split: dict[str, str] = {}
    why: dict[str, str] = {}
    for row in rows:
        own = keys[row.id]
        if of(row) in test:
            split[row.id] = "test"
        elif in_test & own:
            why[row.id] = "people of the test"
        elif of(row) in val:
            split[row.id] = "val"
        elif in_val & own:
            why[row.id] = "people of the validation"
        else:
            split[row.id] = "train"
    return (
        split,
        why,
        [
            f"test on {_named(test)}" if test else "no test",
            f"validation on {_named(val)}" if val else "no source for validation",
        ],
    )


def _tested(size: Counter[str], wanted: str, rng: np.random.Generator) -> set[str]:
    """The sources of the test."""
    if wanted in size:
        return {wanted}
    if wanted == NO_TEST:
        return set()
    there = min(FOLDS, len(size))
    if not (wanted.isdecimal() and int(wanted) < there):
        raise ManifestError(
            f"--leave-out takes a fold, 0 to {there - 1}, a source, or {NO_TEST}, not {wanted}; there is {_named(size)}"
        )
    names = sorted(size)
    shuffled = [names[k] for k in rng.permutation(len(names))]
    folds: list[set[str]] = [set() for _ in range(there)]
    clips = [0] * there
    for name in sorted(shuffled, key=lambda name: -size[name]):
        least = clips.index(min(clips))
        folds[least].add(name)
        clips[least] += size[name]
    return folds[int(wanted)]


def _validated(rows: Sequence[Row], rng: np.random.Generator) -> set[str]:
    """Sources by chance until they have VALIDATION of the real or of the forged clips, and real clips of as many people as
    verdicts on strangers take (`grounds.LEAST`) or, where fewer than twice as many are known, of half of them. Together they
    have at most twice VALIDATION of a class where that is enough, else half, so that training keeps both; never all sources.
    """
    names = rng.permutation(np.array(sorted(set(map(of, rows))), dtype=object)).tolist()
    whole = Counter(row.label for row in rows)
    has = {name: Counter(row.label for row in rows if of(row) == name) for name in names}
    real = [row for row in rows if row.label == 0 and row.identities]
    who = {name: {row.identities[0] for row in real if of(row) == name} for name in names}
    wanted = min(grounds.LEAST, len(set().union(*who.values())) // 2)
    for most in (2 * VALIDATION, 0.5):
        chosen: set[str] = set()
        clips: Counter[int] = Counter()
        for name in names:
            if len(chosen) + 1 < len(names) and all(clips[x] + has[name][x] <= most * n for x, n in whole.items()):
                chosen.add(name)
                clips += has[name]
            known = set().union(*(who[one] for one in chosen))
            if len(known) >= wanted and any(clips[label] >= VALIDATION * n for label, n in whole.items()):
                return chosen
    return chosen


def _keys(rows: Sequence[Row]) -> dict[str, set[str]]:
    """By id: the people of a clip, and its group unless that links nearly everybody."""
    groups = Counter(row.group or row.id for row in rows)
    big = {name for name, n in groups.items() if n > BIG * len(rows)}
    return {row.id: {*people.names(row), row.group or row.id} - (big if row.identities else set()) for row in rows}


def _named(names: Iterable[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
