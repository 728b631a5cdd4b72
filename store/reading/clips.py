"""The table of clips in memory: one row a clip, by number or id, and which rows of `frames/` it holds."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, SupportsIndex, overload

import numpy as np

from concord import plain_json
from store import layout
from store.layout import StoreError
from store.reading.snapshot import Snapshot


@dataclass(frozen=True)
class Clip:
    """One row of `clips/`; labels are 0 real, 1 fake, -1 unknown (also `num_faces`); times in seconds, `offset` to `length`
    in frames. `row` is its number, which `Reader.frames` takes."""

    id: str
    path: str
    corpus: str
    split: str
    method: str
    category: str
    group: str
    identities: tuple[str, ...]
    source: str
    label: int
    audio_fake: int
    video_fake: int
    offset: int
    capacity: int
    length: int
    duration: float
    start_skew: float
    quality: float
    num_faces: int
    done: bool
    row: int


class NoClip(StoreError, IndexError):
    """A store has no clip with that number."""


class UnknownClip(StoreError, KeyError):
    """A store has no clip with that id."""

    __str__ = Exception.__str__  # KeyError's shows a text in quotes


class Slot(NamedTuple):
    """Where the rows of a clip begin, how many it has, and whether they are written."""

    offset: int
    length: int
    done: int


class ClipTable:
    """The clips of one snapshot; `columns` is {column: array [clips]}."""

    def __init__(self, snapshot: Snapshot):
        """Raises StoreError where the table is damaged."""
        self._store = snapshot.place.path
        kinds = {name: kind for name, (kind, _) in layout.CLIP_ARRAYS.items()}
        self.columns = snapshot.table("clips", kinds, length_of="done")
        self._slots = [Slot(*row) for row in zip(*(self.columns[name].tolist() for name in Slot._fields), strict=True)]

    def __len__(self) -> int:
        return len(self._slots)

    def slot(self, i: int) -> Slot:
        """The slot of clip i; raises NoClip where there is no such clip."""
        if not 0 <= i < len(self._slots):
            raise self._no_clip(i)
        return self._slots[i]

    def _no_clip(self, i: int) -> NoClip:
        return NoClip(f"{self._store} has no clip {i}: it has {len(self)}, counted from 0")

    def has(self, name: str) -> bool:
        """Whether a clip has that id."""
        return name in self._rows

    def row(self, key: SupportsIndex | str) -> int:
        """The row of a clip by its number, from the end if negative, or by its id.

        Raises NoClip (an IndexError) or UnknownClip (a KeyError) where there is none, StoreError where two clips have the id,
        TypeError for other keys.
        """
        if isinstance(key, str):
            if key not in self._rows:
                raise UnknownClip(f"{self._store} has no clip called {key!r}; reader.clips['id'] has all its ids")
            if self._rows[key] < 0:
                raise StoreError(f"{self._store} has several clips called {key!r}; take one by its number")
            return self._rows[key]
        try:
            i = operator.index(key)
        except TypeError:
            raise TypeError(f"a clip is asked for by its number or its id, not by {type(key).__name__}") from None
        if not -len(self) <= i < len(self):
            raise self._no_clip(i)
        return i % len(self)

    @cached_property
    def _rows(self) -> dict[str, int]:
        """{id: row}, -1 for ids that are there twice."""
        found: dict[str, int] = {}
        for row, name in enumerate(self.columns["id"].tolist()):
            found[name] = -1 if name in found else row
        return found

    def clip(self, i: int) -> Clip:
        """Row i of the table."""
        self.slot(i)
        values = {name: self.columns[name][i] for name in layout.CLIP_ARRAYS}
        values = {name: v.item() if isinstance(v, np.generic) else v for name, v in values.items()}
        try:
            names = plain_json.parse(values["identities"] or "[]")
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError("it is not a list of names")
        except ValueError as e:
            raise StoreError(f"clip {values['id']}: clips/identities is damaged ({e}); restore it from a copy") from e
        return Clip(**{**values, "identities": tuple(names), "done": bool(values["done"]), "row": i})

    def name(self, i: int) -> str:
        """ "clip ID", for messages."""
        return f"clip {self.columns['id'][i]}"

    def name_of_row(self, row: int) -> str:
        """ "clip ID" for the clip in whose slot a row of `frames/` lies, "row N" where there is none."""
        within = (self.columns["offset"] <= row) & (row < self.columns["offset"] + self.columns["capacity"])
        return self.name(int(within.argmax())) if within.any() else f"row {row}"

    def done_within(self, start: int, stop: int) -> list[int]:
        """Done clips with frames among rows start..stop of `frames/`."""
        offset, length = self.columns["offset"], self.columns["length"]
        within = (self.columns["done"] == 1) & (offset >= 0) & (offset < stop) & (offset + length > start)
        return np.flatnonzero(within).tolist()

    def typical_length(self) -> int:
        """Frames that 19 of 20 done clips do not exceed; 0 without any."""
        lengths = self.columns["length"][self.columns["done"] == 1]
        return int(np.quantile(lengths, 0.95, method="lower")) if len(lengths) else 0

    def blocks_in_use(self, rows: int, count: int) -> np.ndarray:
        """bool [count], for blocks of so many rows of `frames/`: True where a block overlaps a done clip."""
        done = self.columns["done"] == 1
        start, length = self.columns["offset"][done], self.columns["length"][done]
        edges = np.zeros(count + 1, np.int64)
        np.add.at(edges, np.minimum(start // rows, count), 1)
        np.add.at(edges, np.minimum(-(-(start + length) // rows), count), -1)
        return np.cumsum(edges[:-1]) > 0


class Clips:
    """What a reader is as a sequence of its clips: `len`, one by number or id, several by a slice, all in their order."""

    _table: ClipTable

    def __len__(self) -> int:
        """Clips in the store, done or not."""
        return len(self._table)

    @overload
    def __getitem__(self, key: SupportsIndex | str) -> Clip: ...
    @overload
    def __getitem__(self, key: slice) -> list[Clip]: ...
    def __getitem__(self, key: SupportsIndex | str | slice) -> Clip | list[Clip]:
        """A clip by its number (negative: from the end) or its id, or a list of clips by a slice of numbers.

        Raises NoClip, an IndexError, or UnknownClip, a KeyError, where there is none.
        """
        if isinstance(key, slice):
            return [self._table.clip(i) for i in range(*key.indices(len(self)))]
        return self._table.clip(self._table.row(key))

    def __iter__(self) -> Iterator[Clip]:
        return map(self._table.clip, range(len(self)))

    def __contains__(self, key: object) -> bool:
        """Whether a clip has that id, or is that clip."""
        name = key.id if isinstance(key, Clip) else key
        return isinstance(name, str) and self._table.has(name)

    def clip(self, i: int) -> Clip:
        """Row i of the table, from 0 on; raises NoClip where there is none."""
        return self._table.clip(i)
