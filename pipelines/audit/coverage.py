"""Which leaks were looked for, and on how many clips: that none was found is worth no more than that.

For people, sources, files and fingerprints, what `pipelines.audit.leaks` had to compare. It finds nothing itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from pipelines.audit.leaks import ORDER, file_keys, given_group, telling
from pipelines.corpora.manifest import Row

NO_PEOPLE = "no clip names its people (column identities)"
NO_SOURCES = "no clip without people was given a group"
FOLLOW = "groups follow from the people named"
NO_NAMES = "files are named by running numbers, and no lengths are listed; --media compares bytes"
NOT_ASKED = "nobody looked at picture and sound: take --media or --store"


def checked(
    rows: Sequence[Row], prints: Sequence[Hashable | None] | None = None, files: Sequence[str | None] | None = None
) -> dict[str, dict[str, Any]]:
    """Of people, sources, files and fingerprints: "on" how many clips they could be compared "of" all that name a split.

    "by" says what was compared; of people and sources "names" how many distinct ones there are, and "fewest" in one split;
    "why" is empty where it was checked, else says why it was not (then "on" is 0). Arguments are those of `leaks.find`.
    """
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
    splits = [split for split in ORDER if any(row.split == split for row in rows)]
    for kind, names in (
        ("people", [row.identities for row in rows]),
        ("sources", [(g,) if g else () for g in grouped]),
    ):
        sides = [
            {name for row, several in zip(rows, names, strict=True) if row.split == split for name in several}
            for split in splits
        ]
        found[kind] |= {"names": len(set().union(*sides)), "fewest": min(map(len, sides), default=0)}
    return found


def _comparable(rows: Sequence[Row], hashed: Sequence[bool]) -> list[bool]:
    """Whether each row's file can be told from others: by its bytes, a path that is more than a running number, or lengths."""
    return [
        has or row.listed_frames is not None or row.listed_samples is not None or telling(tail, row, row)
        for has, tail, row in zip(hashed, file_keys(rows), rows, strict=True)
    ]


def _checked(rows: Sequence[Row], has: Sequence[bool], by: str, why: str) -> dict[str, Any]:
    """One check: clips [n] that have what it compares, in two splits at least; `why` where none has."""
    all_of = [row.split for row in rows if row.split]
    here = [row.split for row, mine in zip(rows, has, strict=True) if mine and row.split]
    if len(set(all_of)) < 2:
        why = "rows name fewer than two splits"
    elif here and len(set(here)) < 2:
        why = f"only clips of {here[0]} have what is compared ({by})"
    elif here:
        why = ""
    return {"on": 0 if why else len(here), "of": len(all_of), "by": by, "why": why}
