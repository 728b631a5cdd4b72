"""Faults of clips, one record each, and a summary by kind.

Adapters record faults in the rows of their corpus, readers of media find more. No clip is dropped because of a fault;
that is left to those who train or evaluate. A manifest file holds a row's faults as text, "kind: sentence" (`Fault.of`,
`str`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.corpora.manifest import Row

EXAMPLES = 5
MISSING = ("missing_media", "missing_sound")  # the file that a row names does not exist
NO_VIDEO_LISTED = "no_video_listed"  # the list names no file at all
OTHER = "other"  # the kind of a fault without one
KIND = re.compile(r"\w+(?=: )")
RENAMED = {"no_sound": "no_audio", "missing": "missing_media"}  # names of kinds in older manifests and commands


@dataclass(frozen=True)
class Fault:
    """One fault of a clip: `kind` is a short snake_case name that scripts may rely on, `text` a sentence for the
    user."""

    kind: str
    text: str

    @classmethod
    def of(cls, text: str | Fault) -> Fault:
        """A fault from its text in a manifest file; text without a kind gets the kind `other`."""
        if isinstance(text, Fault):
            return text
        match = KIND.match(text)
        return cls(kind_of(match[0]), text[match.end() + 2 :]) if match else cls(OTHER, text)

    def __str__(self) -> str:
        """The text in a manifest file."""
        return self.text if self.kind == OTHER and not KIND.match(self.text) else f"{self.kind}: {self.text}"


@dataclass(frozen=True)
class ClipFault:
    """A fault of the clip `id`."""

    kind: str
    id: str
    text: str


@dataclass(frozen=True)
class FaultKind:
    """All faults of one kind: how many, and the first few."""

    kind: str
    count: int
    examples: Sequence[ClipFault]

    def to_json(self) -> dict[str, Any]:
        """For audit.json."""
        examples = [{"id": one.id, "text": one.text} for one in self.examples]
        return {"kind": self.kind, "count": self.count, "examples": examples}


def kind_of(name: str) -> str:
    """The kind of a fault, which may be given by its older name."""
    return RENAMED.get(name, name)


def names_no_file(row: Row) -> bool:
    """Whether the corpus's list names no video for the row, so that there is nothing to look for."""
    return any(fault.kind == NO_VIDEO_LISTED for fault in row.faults)


def of_rows(rows: Iterable[Row]) -> list[ClipFault]:
    """What adapters noted."""
    return [ClipFault(fault.kind, row.id, fault.text) for row in rows for fault in row.faults]


def summary(faults: Sequence[ClipFault]) -> list[FaultKind]:
    """Faults by kind, the most frequent first."""
    kinds: dict[str, list[ClipFault]] = {}
    for fault in faults:
        kinds.setdefault(fault.kind, []).append(fault)
    found = [FaultKind(kind, len(some), some[:EXAMPLES]) for kind, some in kinds.items()]
    return sorted(found, key=lambda one: (-one.count, one.kind))
