"""Which leaks were looked for, and on how many clips, so that "none found" can be judged.

For people, sources, files and fingerprints it counts the clips that `pipelines.audit.leaks` could compare. It does not
look for leaks itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipelines.audit.leaks import file_keys, given_group, telling
from pipelines.corpora.manifest import SPLITS, Row

NO_PEOPLE = "no clip names its people (column identities)"
NO_SOURCES = "no clip without people was given a group"
FOLLOW = "groups follow from the people named"
NO_NAMES = "files are named by running numbers, and no lengths are listed; --media compares bytes"
NO_SPLITS = "rows name fewer than two splits"
NOT_ASKED = "picture and sound were not looked at: use --media or --store"


@dataclass(frozen=True)
class Checked:
    """One kind of leak: looked for `on` this many clips, `of` all clips with a split, and `by` what means.

    why: empty if it was checked, else the reason why it was not (then `on` is 0). names, fewest: number of people or
    sources in all, and in the smallest split; None for files and fingerprints.
    """

    on: int
    of: int
    by: str
    why: str
    names: int | None = None
    fewest: int | None = None

    def to_json(self) -> dict[str, Any]:
        """For audit.json, without fields that are None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def checked(
    rows: Sequence[Row], prints: Sequence[Hashable | None] | None = None, files: Sequence[str | None] | None = None
) -> dict[str, Checked]:
    """What was compared, by kind: people, sources, files and fingerprints. Arguments are those of `leaks.find`."""
    named = [bool(row.identities) for row in rows]
    grouped = ["" if row.identities else given_group(row) for row in rows]
    hashed = [file is not None for file in files] if files is not None else [False] * len(rows)
    known = [key is not None for key in prints] if prints is not None else [False] * len(rows)
    by = "bytes" if all(hashed) and rows else "bytes and path tails" if any(hashed) else "path tails"
    found = {
        "people": _checked(rows, named, "identities", NO_PEOPLE),
        "sources": _checked(rows, [bool(name) for name in grouped], "group", FOLLOW if all(named) else NO_SOURCES),
        "files": _checked(rows, _comparable(rows, hashed), by, NO_NAMES),
        "fingerprints": _checked(
            rows, known, "picture and sound", NOT_ASKED if prints is None else "no clip could be fingerprinted"
        ),
    }
    splits = [split for split in SPLITS if any(row.split == split for row in rows)]
    for kind, names in (
        ("people", [row.identities for row in rows]),
        ("sources", [(g,) if g else () for g in grouped]),
    ):
        sides = [
            {name for row, several in zip(rows, names, strict=True) if row.split == split for name in several}
            for split in splits
        ]
        fewest = min(map(len, sides), default=0)
        found[kind] = replace(found[kind], names=len(set().union(*sides)), fewest=fewest)
    return found


def _comparable(rows: Sequence[Row], hashed: Sequence[bool]) -> list[bool]:
    """Whether each row's file can be identified: by its bytes, a path that is more than a running number, or
    lengths."""
    return [
        has or row.listed_frames is not None or row.listed_samples is not None or telling(tail, row, row)
        for has, tail, row in zip(hashed, file_keys(rows), rows, strict=True)
    ]


def _checked(rows: Sequence[Row], has: Sequence[bool], by: str, why: str) -> Checked:
    """One check: clips [n] that can be compared, in at least two splits; `why` if there are none."""
    all_of = [row.split for row in rows if row.split]
    here = [row.split for row, mine in zip(rows, has, strict=True) if mine and row.split]
    if len(set(all_of)) < 2:
        why = NO_SPLITS
    elif here and len(set(here)) < 2:
        why = f"only clips of {here[0]} can be compared ({by})"
    elif here:
        why = ""
    return Checked(0 if why else len(here), len(all_of), by, why)
