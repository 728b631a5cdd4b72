"""The table of clips in memory: one row a clip, and which rows of `frames/` it holds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from concord import plain_json
from store import layout
from store.layout import StoreError
from store.reading.snapshot import Snapshot


@dataclass(frozen=True)
class Clip:
    """One row of `clips/`; labels are 0 real, 1 fake, -1 unknown (also `num_faces`); times in seconds, `offset` to `length`
    in frames."""

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
        """The slot of clip i; raises StoreError where there is no such clip."""
        if not 0 <= i < len(self._slots):
            raise StoreError(f"{self._store} has no clip {i}: it has {len(self)}, counted from 0")
        return self._slots[i]

    def clip(self, i: int) -> Clip:
        """Row i of the table."""
        self.slot(i)
        values = {f.name: self.columns[f.name][i] for f in fields(Clip)}
        values = {name: v.item() if isinstance(v, np.generic) else v for name, v in values.items()}
        try:
            names = plain_json.parse(values["identities"] or "[]")
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError("it is not a list of names")
        except ValueError as e:
            raise StoreError(f"clip {values['id']}: clips/identities is damaged ({e}); restore it from a copy") from e
        return Clip(**{**values, "identities": tuple(names), "done": bool(values["done"])})

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
