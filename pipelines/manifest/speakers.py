"""The protocol `speakers`: train, validation and test of GRID, of a folder of real clips, or of any corpus, by speaker.

A speaker is whoever a clip names (`identities`), else its given group, such as a folder. Speakers stay whole, and every
split with a share gets one of them at least. With fewer speakers than splits, or if nobody is known, single clips are
assigned, and a note says that the same face and voice may then be on two sides. Labels are not needed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from concord.text import counted
from pipelines.audit import leaks
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import SPLITS, Row
from pipelines.manifest import people

NAMED = 3  # speakers that a note names


def made(linked: Callable[..., Any], rows: list[Row], options: Any, rng: np.random.Generator) -> Any:
    """Splits by id, reasons of clips without one, and notes, as every protocol gives them (`protocols.Made`).

    `linked` is for people whose clips hang together, so that whole groups would leave nothing to divide.
    """
    total = sum(options.shares)
    shares = {split: x / total for split, x in zip(SPLITS, options.shares, strict=True) if x}
    units = Counter(row.group or row.id for row in rows)
    known = Counter(row.group for row in rows if row.identities or leaks.given_group(row))
    biggest, size = units.most_common(1)[0]
    persons = {name for row in rows if row.group == biggest for name in row.identities}
    if size > len(rows) / 2 and len(persons) >= len(shares):
        return linked(rows, options, rng)
    if len(known) < len(shares):
        if len(rows) < len(shares):
            raise ManifestError(
                f"{counted(len(rows), 'clip')} cannot be divided into {' and '.join(shares)}; add clips, or give a share of 0"
            )
        sides = _whole([replace(row, group=row.id) for row in rows], shares, rng)
        return {row.id: sides[row.id] for row in rows}, {}, [_by_clip(known)]
    sides = _whole(rows, shares, rng)
    return {row.id: sides[row.group or row.id] for row in rows}, {}, [*_by_speaker(rows, known, sides, shares)]


def _whole(rows: Sequence[Row], shares: Mapping[str, float], rng: np.random.Generator) -> dict[str, str]:
    """The split of each group, none of `shares` without a group."""
    sides = people.whole_groups(rows, shares, rng)
    size = Counter(row.group or row.id for row in rows)
    for split in shares:
        if split not in sides.values():
            members = {other: [name for name in sides if sides[name] == other] for other in shares}
            rich = max(shares, key=lambda other: len(members[other]))
            sides[min(members[rich], key=lambda name: (size[name], name))] = split
    return sides


def _by_clip(known: Counter[str]) -> str:
    why = {0: "no clip names its speaker", 1: f"all speakers known are one, {next(iter(known), '')}"}
    few = f"only {counted(len(known), 'speaker is', 'speakers are')} known ({', '.join(sorted(known))})"
    return (
        f"{why.get(len(known), few)}, so single clips were assigned: train and test may share faces and voices, and a figure "
        "on this test says nothing about other people"
    )


def _by_speaker(
    rows: Sequence[Row], known: Counter[str], sides: Mapping[str, str], shares: Mapping[str, float]
) -> Iterator[str]:
    """Notes on speakers in each split, and on clips without any."""
    named = {row.group for row in rows if row.identities}
    counts = ", ".join(f"{sum(sides[name] == split for name in known):,} {split}" for split in shares)
    folders = sorted(set(known) - named)
    yield f"{counted(len(known), 'speaker stays', 'speakers stay')} whole: {counts}"
    if folders:
        shown = ", ".join(folders[:NAMED]) + (", ..." if len(folders) > NAMED else "")
        yield f"{len(folders):,} of them are groups, such as folders ({shown}), each taken for one speaker"
    if alone := sum(1 for row in rows if row.group not in known):
        told = counted(alone, "clip names no speaker and was", "clips name no speaker and were")
        yield f"{told} assigned one by one: some may be of people on another side"
