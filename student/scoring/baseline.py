"""The strongest trivial baseline: what one number that has nothing to do with forgery scores on the very clips of a figure.

`python -m pipelines.audit --store STORE` leaves `audit.json` (AUC of every such number by method) and `nuisances.parquet` (the
numbers of each clip) in the store. For a method the number with the audit's best AUC is taken, and its values are scored like
a detector's logits, on the same trials. A detector that does not beat it has shown nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from concord import plain_json
from store import Reader, StoreError
from store.formats.table import read_parquet
from student.scoring.metrics import auc
from student.scoring.score import Trial

if TYPE_CHECKING:
    import pandas as pd


MOST_AUDIT = 64 << 20  # bytes of audit.json


class Baselines:
    """Numbers of an audited store's clips; `of_store` gives None where nobody has audited it."""

    def __init__(self, shortcuts: Sequence[dict[str, Any]], table: pd.DataFrame, reader: Reader) -> None:
        self.shortcuts, self.reader = shortcuts, reader
        self.table = table.set_index("id").reindex([str(x) for x in reader.clips["id"]])

    @classmethod
    def of_store(cls, reader: Reader) -> Baselines | None:
        """Raises StoreError where the audit's files cannot be read."""
        found, table = reader.place / "audit.json", reader.place / "nuisances.parquet"
        try:
            if not (found.exists() and table.exists()):
                return None
            return cls(plain_json.parse_dict(found.read(), MOST_AUDIT)["shortcuts"], read_parquet(table.read()), reader)
        except (OSError, ValueError, KeyError, TypeError) as error:
            text = f"the audit in {reader.path} cannot be read ({error}); run python -m pipelines.audit --store again"
            raise StoreError(text) from error

    def strongest(self, method: str, items: Sequence[Trial]) -> tuple[str, np.ndarray] | None:
        """Name and scores [n] (higher = fake, NaN = not known) of the best number for `method` ("all" = every fake) on `items`.

        Direction, and for words (codec, encoder) their order, come from the store's labelled clips that are not among `items`
        where those hold both classes, else from all. None where the audit has no number for that method.
        """
        rows = np.array([t.lips for t in items], int)
        corpora = {str(self.reader.clips["corpus"][row]) for row in rows}
        known = [
            s
            for s in self.shortcuts
            if s["method"] == method and s["corpus"] in corpora and s["nuisance"] in self.table.columns
        ]
        if not known:
            return None
        name = str(max(known, key=lambda s: s["auc"])["nuisance"])
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
        return (-values if turned else values)[rows]

    def _numbers(self, name: str, taught: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The column as f8 [clips]; a word counts as the share of fakes that it has among the clips `taught`."""
        import pandas as pd

        column = self.table[name]
        if pd.api.types.is_numeric_dtype(column):
            return column.to_numpy(float)
        words = column.astype(str)
        share = pd.Series(label[taught]).groupby(words.to_numpy()[taught]).mean()
        return words.map(share).to_numpy(float)
