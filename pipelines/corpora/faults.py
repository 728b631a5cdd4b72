"""What is wrong with clips: one record a fault, and their summary by kind.

Adapters write faults of a corpus into its manifest rows ("kind: sentence"), readers of media find more. None of them drops a
clip: whoever trains or evaluates decides, knowing which.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.corpora.manifest import Row

EXAMPLES = 5


@dataclass(frozen=True)
class Fault:
    """kind is a short snake_case name that scripts may rely on, id the clip's, text one sentence for a person."""

    kind: str
    id: str
    text: str


def of_rows(rows: Iterable[Row]) -> list[Fault]:
    """What adapters found; a fault that names no kind is of kind `other`."""
    found = []
    for row in rows:
        for fault in row.faults:
            kind, separator, text = fault.partition(": ")
            named = bool(separator) and kind.replace("_", "").isalnum()
            found.append(Fault(kind, row.id, text) if named else Fault("other", row.id, fault))
    return found


def summary(faults: Sequence[Fault]) -> list[dict[str, Any]]:
    """[{kind, count, examples}], most frequent kind first; examples are {id, text}, the first few."""
    kinds: dict[str, list[Fault]] = {}
    for fault in faults:
        kinds.setdefault(fault.kind, []).append(fault)
    return [
        {
            "kind": kind,
            "count": len(some),
            "examples": [{k: v for k, v in asdict(f).items() if k != "kind"} for f in some[:EXAMPLES]],
        }
        for kind, some in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
