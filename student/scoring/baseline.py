"""The strongest trivial baseline: the score of one number unrelated to forgery on the same clips as a figure.

`python -m pipelines.audit --store STORE` leaves `audit.json` (AUC of every such number by method) and `nuisances.parquet` (the
numbers of each clip) in the store. For a method the number with the audit's best AUC is taken, and its values are scored like
a detector's logits, on the same trials. A detector that is not better has not been shown to work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from concord import plain_json
from store import Reader, StoreError
from store.formats.table import read_parquet
from student.scoring.metrics import auc
from student.scoring.score import Trial

if TYPE_CHECKING:
    import pandas as pd


MOST_AUDIT = 64 << 20  # bytes of audit.json, at most


@dataclass(frozen=True)
class Shortcut:
    """An audit's result for one number: its AUC on the forgeries of one method in one corpus."""

    corpus: str
    nuisance: str
    method: str
    auc: float

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Shortcut:
        """Raises KeyError, TypeError or ValueError for invalid values."""
        return cls(str(told["corpus"]), str(told["nuisance"]), str(told["method"]), float(told["auc"]))


class Baselines:
    """Numbers of an audited store's clips; `of_store` returns None if it was not audited."""

    def __init__(self, shortcuts: Sequence[Shortcut], table: pd.DataFrame, reader: Reader) -> None:
        self.shortcuts, self.reader = shortcuts, reader
        self.table = table.set_index("id").reindex([str(x) for x in reader.clips["id"]])

    @classmethod
    def of_store(cls, reader: Reader) -> Baselines | None:
        """Raises StoreError if the audit's files cannot be read."""
        found, table = reader.place / "audit.json", reader.place / "nuisances.parquet"
        try:
            if not (found.exists() and table.exists()):
                return None
            shortcuts = [Shortcut.parse(told) for told in plain_json.parse_dict(found.read(), MOST_AUDIT)["shortcuts"]]
            return cls(shortcuts, read_parquet(table.read()), reader)
        except (OSError, ValueError, KeyError, TypeError) as error:
            text = f"the audit in {reader.path} cannot be read ({error}); run python -m pipelines.audit --store again"
            raise StoreError(text) from error

    def strongest(self, method: str, items: Sequence[Trial]) -> tuple[str, np.ndarray] | None:
        """Name and scores [n] (higher = fake, NaN = not known) of the best number for `method` ("all" = every fake) on `items`.

        The direction, and for words (codec, encoder) their order, come from the store's labelled clips that are not
        among `items` if these have both classes, else from all. None if the audit has no number for that method.
        """
        rows = np.array([t.lips for t in items], int)
        corpora = {str(self.reader.clips["corpus"][row]) for row in rows}
        known = [
            s for s in self.shortcuts if s.method == method and s.corpus in corpora and s.nuisance in self.table.columns
        ]
        if not known:
            return None
        name = max(known, key=lambda s: s.auc).nuisance
        return name, self._scores(name, method, rows)

    def _scores(self, name: str, method: str, rows: np.ndarray) -> np.ndarray:
        clips = self.reader.clips
        label = np.asarray(clips["label"]).astype(int)
        of_method = np.array([method in ("all", str(m)) for m in clips["method"]], bool)
        judged = ((label == 0) | ((label == 1) & of_method)) & self.table[name].notna().to_numpy()
        judged &= np.isin(clips["corpus"], np.unique(clips["corpus"][rows]))
        rest = judged & ~np.isin(np.arange(len(label)), rows)
        taught = rest if len(np.unique(label[rest])) == 2 else judged
        values = self._numbers(name, taught, label)
        use = taught & np.isfinite(values)
        turned = len(np.unique(label[use])) == 2 and auc(values[use], label[use]) < 0.5
        return np.asarray((-values if turned else values)[rows])

    def _numbers(self, name: str, taught: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The column as f8 [clips]; a word is replaced by its share of fakes among the clips `taught`."""
        import pandas as pd

        column = self.table[name]
        if pd.api.types.is_numeric_dtype(column):
            return np.asarray(column, float)
        words = column.astype(str)
        share = pd.Series(label[taught]).groupby(words.to_numpy()[taught]).mean()
        return np.asarray(words.map(share), float)
