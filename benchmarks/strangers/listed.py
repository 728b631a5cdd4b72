"""The clips of a manifest: their rows, sources and people, and a part of them by number.

The person of a clip is the connected component of its identities (`pipelines.corpora.manifest.with_groups`): clips that share
a person, directly or through a third clip, are not independent. A clip without identities has the group that its list gives;
without one nobody knows who it shows, and it counts as a person of its own, which makes intervals too narrow if people
come back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.corpora import manifest
from pipelines.corpora.manifest import Row
from store import layout


@dataclass(frozen=True)
class Listed:
    """One clip of a manifest; `source` is where its list says it comes from, "" if it does not say."""

    row: Row
    source: str = ""

    @property
    def is_known(self) -> bool:
        """Whether the list says who is seen."""
        return bool(self.row.identities) or self.row.group != self.row.id

    @property
    def person(self) -> str:
        """The people who are drawn together with this clip's."""
        return f"person {self.row.group}" if self.is_known else f"clip {self.row.id}"

    @property
    def is_real(self) -> bool:
        return self.row.label == layout.REAL

    @property
    def is_forged(self) -> bool:
        return self.row.label == layout.FAKE

    @property
    def method(self) -> str:
        """The name of the method that made it; "unnamed" for a forged clip whose list has none."""
        return self.row.method or ("unnamed" if self.is_forged else "")


def read(file: str | Path, limit: int | None = None) -> tuple[list[Listed], int]:
    """The clips of a manifest in its order, and how many it lists. With `limit` at most that many of each corpus and
    method, real clips being one of them, evenly spaced.

    Raises ManifestError.
    """
    rows = manifest.load(f"csv:{file}")
    lines = manifest.records(Path(file))
    sources = ["" if _empty(line.get("source")) else str(line["source"]) for line in lines]
    clips = [Listed(row, str(getattr(row, "source", "") or source)) for row, source in zip(rows, sources, strict=True)]
    return (few(clips, limit) if limit else clips), len(clips)


def few(clips: Sequence[Listed], limit: int) -> list[Listed]:
    """At most `limit` of each corpus, label and method, evenly spaced, in order."""
    kinds: dict[tuple[str, int, str], list[int]] = defaultdict(list)
    for k, clip in enumerate(clips):
        kinds[clip.row.corpus, clip.row.label, clip.row.method].append(k)
    kept: set[int] = set()
    for places in kinds.values():
        chosen = np.linspace(0, len(places) - 1, min(limit, len(places))).round().astype(int)
        kept |= {places[k] for k in chosen}
    return [clips[k] for k in sorted(kept)]


def _empty(value: object) -> bool:
    return value is None or value != value or not str(value).strip()
