"""The clips of a store, filtered, sorted and cut into pages, for a table of up to a million rows.

A query comes from the address of a page, so anybody may have written it: unknown values select nothing or count as
left out, and nothing of it reaches a path. Names of corpora, methods and splits are numbered once, so that a filter
compares whole numbers.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from store import layout
from store.reader import Reader
from store.serve.agreement import MARKS, Agreement

PAGE = 50  # clips on a page
NAMED = ("corpus", "split", "method", "category", "group")  # columns with names, given as "=NAME"; "" is any
LABELS = {"real": layout.REAL, "fake": layout.FAKE, "unknown": layout.UNKNOWN}
SORTS = {
    "": "as stored",
    "lowest": "lowest agreement first",
    "highest": "highest agreement first",
    "against": "most against the label first",
    "longest": "longest first",
}
SHOWS = {
    "": "all",
    "held": "picture stands still",
    "unseen": "no face in some frames",
    "interpolated": "face interpolated",
    "silent": "no voice in some frames",
    "faces": "several faces",
}
READING = ("lowest", "highest", "against")  # sorts that need every clip's agreement
MOST_NAMES = 300  # in one list to choose from
KEPT = 8  # orders of earlier queries


@dataclass(frozen=True)
class Query:
    """Which clips, in which order, and which page of them, from 1. Names are "=NAME", "" is any."""

    corpus: str = ""
    split: str = ""
    method: str = ""
    category: str = ""
    group: str = ""
    label: str = ""
    show: str = ""
    text: str = ""
    sort: str = ""
    page: int = 1

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Query:
        """From the parameters of an address; what is not understood counts as left out."""
        named = {name: given[name] for name in NAMED if given.get(name, "").startswith("=")}
        for name, known in (("label", LABELS), ("show", SHOWS), ("sort", SORTS)):
            if given.get(name, "") in known:
                named[name] = given.get(name, "")
        page = given.get("page", "")
        number = int(page) if page.isascii() and page.isdigit() and len(page) < 10 else 1
        return cls(**named, text=given.get("text", "")[:200], page=max(1, number))

    @property
    def parameters(self) -> dict[str, str]:
        """What an address needs for the same query, without the page."""
        return {name: value for name, value in vars(self).items() if value and name != "page"}

    @property
    def reads(self) -> bool:
        """Whether all clips must have been read for it."""
        return self.sort in READING or self.show in MARKS


@dataclass(frozen=True)
class Page:
    """Rows of the table of clips on one page; `total` clips match on `pages` pages."""

    rows: Sequence[int]
    number: int
    pages: int
    total: int


class Browser:
    """Answers queries; may be used by many threads."""

    def __init__(self, reader: Reader, agreement: Agreement) -> None:
        clips = reader.clips
        self._clips, self._agreement = clips, agreement
        self._done = clips["done"] == 1
        self._codes: dict[str, np.ndarray] = {}
        self._names: dict[str, dict[str, int]] = {}
        self._counts: dict[str, dict[str, int]] = {}
        for name in NAMED:
            codes, names = pd.factorize(clips[name])
            self._codes[name] = codes
            self._names[name] = {str(value): k for k, value in enumerate(names)}
        self._orders: OrderedDict[tuple[Query, int], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def names(self, column: str) -> dict[str, int]:
        """Names in a column of NAMED and how many done clips have each, the most frequent first, at most MOST_NAMES."""
        if column not in self._counts:
            counts = np.bincount(self._codes[column][self._done], minlength=len(self._names[column]))
            found = sorted(zip(self._names[column], counts.tolist(), strict=True), key=lambda item: (-item[1], item[0]))
            self._counts[column] = {name: count for name, count in found[:MOST_NAMES] if count}
        return self._counts[column]

    def page(self, query: Query) -> Page:
        """The page of a query; the last one where it asks for one after that."""
        order = self.order(query)
        pages = max(1, -(-len(order) // PAGE))
        number = min(query.page, pages)
        return Page(order[(number - 1) * PAGE : number * PAGE].tolist(), number, pages, len(order))

    def neighbours(self, query: Query, row: int) -> tuple[int | None, int | None]:
        """The clips before and after a clip in the order of a query; None at its ends, and where the clip is not in it."""
        order = self.order(query)
        at = np.flatnonzero(order == row)
        if not len(at):
            return None, None
        k = int(at[0])
        return (int(order[k - 1]) if k else None), (int(order[k + 1]) if k + 1 < len(order) else None)

    def order(self, query: Query) -> np.ndarray:
        """All done clips of a query in its order: rows of the table, int [matches]."""
        query = replace(query, page=1)
        key = query, self._agreement.progress().read if query.reads else 0
        with self._lock:
            if (known := self._orders.get(key)) is not None:
                self._orders.move_to_end(key)
                return known
        order = self._sorted(query, np.flatnonzero(self._matches(query)))
        with self._lock:
            self._orders[key] = order
            while len(self._orders) > KEPT:
                self._orders.popitem(last=False)
        return order

    def _matches(self, query: Query) -> np.ndarray:
        """Bool [clips]."""
        found: np.ndarray = self._done.copy()
        for column in NAMED:
            if wanted := getattr(query, column):
                found &= self._codes[column] == self._names[column].get(wanted[1:], -1)
        if query.label:
            found &= self._clips["label"] == LABELS[query.label]
        if query.show in MARKS:
            found &= self._agreement.marks[query.show] > 0
        if query.show == "faces":
            found &= self._clips["num_faces"] > 1
        if words := query.text.casefold().split():
            rows = np.flatnonzero(found)
            ids, paths = self._clips["id"], self._clips["path"]
            texts = (f"{ids[row]}\n{paths[row]}".casefold() for row in rows)
            found[rows] = [all(word in text for word in words) for text in texts]
        return found

    def _sorted(self, query: Query, rows: np.ndarray) -> np.ndarray:
        """Rows in the order of the query; those that it cannot place come last, as they are stored."""
        mean = self._agreement.mean[rows]
        if query.sort in ("lowest", "highest"):
            value = mean if query.sort == "lowest" else -mean
        elif query.sort == "against":  # a real clip should have 1, a fake one 0
            label = self._clips["label"][rows]
            value = np.where(label == layout.UNKNOWN, np.nan, np.where(label == layout.REAL, mean, 1 - mean))
        elif query.sort == "longest":
            value = -self._clips["length"][rows].astype(np.int64)
        else:
            return rows
        order: np.ndarray = rows[np.argsort(value, kind="stable")]
        return order
