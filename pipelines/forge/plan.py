"""Which clips are forged, what their files are called, and which other clips each may take from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from concord.text import counted
from pipelines.corpora import manifest
from pipelines.corpora.manifest import Row
from pipelines.errors import UsageError
from pipelines.forging.methods import METHODS

REAL = "real"
SUFFIX = ".mp4"
NAMED = 40  # characters of a file's own name that its outputs keep
LONG_ENOUGH = 0.6  # of a clip's length: donors that are at least so long are preferred


@dataclass(frozen=True)
class Source:
    """A real clip; `name` is the stem of all files made from it: unlike its path it is unique."""

    row: Row
    name: str

    @classmethod
    def of(cls, row: Row) -> Source:
        stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(row.path).stem).strip("-")[:NAMED] or "clip"
        return cls(row, f"{stem}-{hashlib.sha256(row.id.encode()).hexdigest()[:8]}")


@dataclass(frozen=True)
class Request:
    """What a folder is made from. Everything but `methods` must stay when a run is continued."""

    sources: tuple[Source, ...]
    seed: int
    methods: tuple[str, ...]

    def digest(self) -> str:
        """A short text that differs where sources or seed differ."""
        said = "\n".join(
            [
                str(self.seed),
                *(f"{s.row.id} {s.row.group} {s.row.split} {','.join(s.row.identities)}" for s in self.sources),
            ]
        )
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def sources(corpora: Sequence[str], limit: int | None) -> tuple[Source, ...]:
    """The first `limit` clips of the corpora (KIND:ROOT) that are known to be real. Raises ManifestError and UsageError."""
    rows = [row for corpus in corpora for row in manifest.load(corpus)]
    if len({row.id for row in rows}) < len(rows):
        raise UsageError(
            "two of the corpora give clips of the same id; name each corpus once, or list them in one manifest"
        )
    real = [row for row in manifest.with_groups(rows) if row.label == 0]
    if not real:
        raise UsageError(
            f"no clip of {', '.join(corpora)} ({counted(len(rows), 'clip')}) is known to be real: give them label 0 in a "
            "manifest, or put them into a folder real/"
        )
    return tuple(Source.of(row) for row in real[:limit])


def place(root: Path, method: str, name: str) -> Path:
    """Where an output goes; `method` is REAL for the real clip itself."""
    return root / method / f"{name}{SUFFIX}"


def seed_of(seed: int, name: str, method: str) -> np.random.Generator:
    """The generator of one output: it depends on nothing that happens to others."""
    return np.random.default_rng([seed, *hashlib.sha256(f"{method}/{name}".encode()).digest()[:8]])


def donors(usable: Mapping[str, tuple[Source, int]], seed: int) -> dict[str, list[Source]]:
    """For each usable clip (by name, with its length in frames) the others that it may take from, in order of name.

    Clips of the same person if there are any; else those of a partner: groups of one split are drawn into pairs (one into
    a triple), because with donors from everywhere all people would be one group, which no split could divide.
    """
    units: dict[tuple[str, str], list[Source]] = {}
    for name in sorted(usable):
        one = usable[name][0]
        units.setdefault((one.row.split, one.row.group), []).append(one)
    partner: dict[tuple[str, str], tuple[str, str]] = {}
    for split in sorted({split for split, _ in units}):
        groups = sorted(unit for unit in units if unit[0] == split)
        groups = [groups[k] for k in np.random.default_rng([seed, len(split)]).permutation(len(groups))]
        for k in range(0, len(groups) - 1, 2):
            ring = groups[k:] if k == len(groups) - 3 else groups[k : k + 2]
            partner |= dict(zip(ring, [*ring[1:], ring[0]], strict=True))
            if len(ring) == 3:
                break
    found = {}
    for name, (one, length) in usable.items():
        unit = one.row.split, one.row.group
        others = [other for other in units[unit] if other.name != name]
        same = [other for other in others if other.row.identities and other.row.identities == one.row.identities]
        pool = same or others or units.get(partner.get(unit, ("", "\0")), [])
        long = [other for other in pool if usable[other.name][1] >= LONG_ENOUGH * length]
        found[name] = long or pool
    return found


def folders() -> tuple[str, ...]:
    """Names of the folders with clips."""
    return (REAL, *METHODS)
