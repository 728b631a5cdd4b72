"""Numbers of stored clips that have nothing to do with forgery, and the best of them against forged clips.

A store keeps no codecs, rates or sizes: lengths, levels and silences of the sound, and the share of frames with a face are
tried. Their figures are those of the audit (`pipelines.audit.shortcuts`): each number in its better direction on the very
clips that are judged, since a model would find it. So a detector must beat them clearly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.audit import shortcuts, stored
from pipelines.audit.nuisances import means
from pipelines.corpora.manifest import Row
from store import Reader

if TYPE_CHECKING:
    import pandas as pd

KNOWN = 0.9  # share of either class for which a number must be known: its figure is of the same clips
UNNAMED = "unnamed"


@dataclass(frozen=True)
class Best:
    """The number that tells one method from real clips best: its name, AUC, 95 % interval, and for how many clips it is
    known."""

    number: str
    auc: float
    low: float
    high: float
    forged: int
    real: int

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "means": means(self.number)}


def best(rows: Sequence[Row], table: pd.DataFrame, draws: int = shortcuts.DRAWS) -> dict[str, Best]:
    """The best number for each method and for "all" forged clips, against all real clips among the rows, whose label is 0
    or 1; `table` has a row for each, NaN for unknown."""
    # One corpus: the split is the caller's. Every row has its own path, or copies would be left out.
    rows = [
        replace(row, corpus="", path=f"/{k}", method=row.method or (UNNAMED if row.label == 1 else ""))
        for k, row in enumerate(rows)
    ]
    real = sum(row.label == 0 for row in rows)
    forged = Counter(row.method for row in rows if row.label == 1)
    alone = len(forged) == 1
    forged[shortcuts.ALL] = forged.total()
    found: dict[str, Best] = {}
    for line in shortcuts.find(rows, table, draws=draws, together=False):
        if line.reals >= KNOWN * real and line.fakes >= KNOWN * forged[line.method]:
            told = Best(line.nuisance, line.auc, line.low, line.high, line.fakes, line.reals)
            found.setdefault(line.method, told)
    if alone and found:  # the audit leaves out "all" where there is one method
        found.setdefault(shortcuts.ALL, next(iter(found.values())))
    return found


class Numbers:
    """The trivial numbers of a store's clips, each clip's read once."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.known: dict[int, tuple[Row, dict[str, float]]] = {}

    def strongest(self, rows: Sequence[int]) -> Best | None:
        """The best number for all forged clips among these rows; None without both classes. Raises StoreError."""
        import pandas as pd

        found = [self._of(int(row)) for row in rows]
        if len({row.label for row, _ in found}) < 2:
            return None
        columns = {name: [own.get(name, np.nan) for _, own in found] for name in stored.NUMBERS}
        return best([row for row, _ in found], pd.DataFrame(columns)).get(shortcuts.ALL)

    def _of(self, row: int) -> tuple[Row, dict[str, float]]:
        if row not in self.known:
            clip = self.reader.clip(row)
            got = self.reader.frames(row, 0, clip.length, ["audio", "flags"])
            about = Row(
                clip.path,
                label=clip.label,
                method=clip.method,
                identities=clip.identities,
                group=clip.group,
                id=clip.id,
            )
            self.known[row] = about, stored.numbers(clip, got["audio"], got["flags"])[0]
        return self.known[row]
