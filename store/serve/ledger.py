"""The ledger of a store as the page shows it: the clips that failed and why, and notes about those that did not.

`ledger.parquet` belongs to the run that fills the store; here it is only read, with limits, and its texts are
strangers'.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from concord.secrets import redact
from store.formats.table import read_parquet
from store.place import Place
from store.serve.browse import PAGE

FILE = "ledger.parquet"
COLUMNS = ("id", "path", "stage", "reason", "message", "attempts", "notes")


@dataclass(frozen=True)
class Entry:
    """What became of one input; `row` is its row in the table of clips, None where it has none."""

    id: str
    path: str
    stage: str
    reason: str
    message: str
    attempts: int
    notes: str
    row: int | None


@dataclass(frozen=True)
class Failures:
    """Failed inputs on one page, from 1; `total` match on `pages` pages."""

    entries: list[Entry]
    number: int
    pages: int
    total: int


class Ledger:
    """The ledger of a store, read when it is first asked for. `fault` says why it cannot be read, "" where it can."""

    def __init__(self, place: Place, rows: pd.Index) -> None:
        """`rows`: ids of the clips in the order of the table."""
        self._place, self._rows = place, rows
        self._lock = threading.Lock()
        self._loaded: tuple[pd.DataFrame, pd.DataFrame, dict[str, int]] | None = None
        self.fault = ""

    def entry(self, id: str) -> Entry | None:
        """The row about a clip; None where there is none."""
        found, _, _ = self._tables()
        (at,) = found.index.get_indexer([id])
        return self._entry(found.iloc[at]) if at >= 0 else None

    def reasons(self) -> dict[str, int]:
        """How many inputs failed for each reason, the most frequent first."""
        return self._tables()[2]

    def failures(self, reason: str, text: str, page: int) -> Failures:
        """A page of the failed inputs, of one reason ("" is any), with all words of `text` in id, path or message."""
        _, found, _ = self._tables()
        if reason:
            found = found[found["reason"] == reason]
        for word in text.casefold().split():
            texts = found["id"] + "\n" + found["path"] + "\n" + found["message"]
            found = found[texts.str.casefold().str.contains(word, regex=False)]
        pages = max(1, -(-len(found) // PAGE))
        number = min(max(1, page), pages)
        shown = found.iloc[(number - 1) * PAGE : number * PAGE]
        return Failures([self._entry(row) for _, row in shown.iterrows()], number, pages, len(found))

    def _entry(self, row: Mapping[str, object]) -> Entry:
        texts = {name: redact(str(row[name])) for name in COLUMNS if name not in ("id", "attempts")}
        (at,) = self._rows.get_indexer([row["id"]])
        return Entry(id=str(row["id"]), attempts=int(str(row["attempts"])), row=int(at) if at >= 0 else None, **texts)

    def _tables(self) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, int]]:
        """All rows and those that failed, both by id, and how many failed for each reason."""
        with self._lock:
            if self._loaded is None:
                table = self._read()
                failed = table[table["reason"] != ""]
                self._loaded = table, failed, dict(Counter(failed["reason"].tolist()).most_common())
            return self._loaded

    def _read(self) -> pd.DataFrame:
        empty = pd.DataFrame({name: [] for name in COLUMNS}, dtype=object)
        try:
            table = read_parquet((self._place / FILE).read())
            for name in COLUMNS:
                if name not in table:
                    table[name] = 0 if name == "attempts" else ""
            table = table[list(COLUMNS)]
            table["attempts"] = pd.to_numeric(table["attempts"]).fillna(0).astype(int)
            texts = [name for name in COLUMNS if name != "attempts"]
            table[texts] = table[texts].fillna("").astype(str)
            table = table.drop_duplicates("id")
        except FileNotFoundError:
            self.fault = f"there is no {FILE}"
            table = empty
        except (OSError, ValueError, TypeError, OverflowError) as error:
            why = (str(error) or type(error).__name__).splitlines()[0]
            self.fault = f"{FILE} is damaged ({why}); run precompute.py on the store again to repair it"
            table = empty
        return table.set_index("id", drop=False)
