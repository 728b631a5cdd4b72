"""How well lips and voice of each clip agree, and how many of its frames say nothing: gathered shard by shard.

A store has soft labels by frame. Their means by clip are needed to sort by them, and reading them all takes a minute
for a million clips of 3 s (tried on 20,000). So a thread gathers them once somebody sorts, and what it has so far can
be used; the few clips of one page are read directly. The numbers are kept in memory alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from store import layout
from store.layout import StoreError
from store.reader import Reader

MARKS = ("unseen", "interpolated", "held", "silent")  # counts of frames, see `Agreement`
AT_ONCE = layout.SHARD  # rows read together: three arrays of 2, 1 and 1 bytes a row


@dataclass(frozen=True)
class Progress:
    """How many done clips were read, `of` how many; `lost` of them cannot be read."""

    read: int
    of: int
    lost: int

    @property
    def complete(self) -> bool:
        return self.read >= self.of


class Agreement:
    """Columns [clips], which stay at their fill value for clips that are not read yet, not done or damaged.

    mean f4: mean soft label of the frames that have one, NaN without any; labelled i4: how many those are. unseen (no face
    was found), interpolated (a face between two others), held (a face that stands still), silent (no voice) i4: frames.
    `lacks` says why the store has no soft labels, "" where it has.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        count = len(reader)
        self.mean = np.full(count, np.nan, np.float32)
        self.labelled = np.zeros(count, np.int32)
        self.marks = {name: np.zeros(count, np.int32) for name in MARKS}
        self._state = np.zeros(count, np.uint8)  # 1 read, 2 damaged
        clips = reader.clips
        done = np.flatnonzero((clips["done"] == 1) & (clips["offset"] >= 0) & (clips["length"] > 0))
        self._order = done[np.argsort(clips["offset"][done], kind="stable")]
        self.lacks = _lacks(reader)
        self._names = ["flags"] if self.lacks else ["similarity", "flags"]
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._finished = threading.Event()

    def progress(self) -> Progress:
        """How far it is."""
        state = self._state[self._order]
        return Progress(int((state > 0).sum()), len(state), int((state == 2).sum()))

    def gather(self, wait_s: float) -> Progress:
        """Read all clips in a thread, if it was not begun yet; wait for its end, but not longer than `wait_s`."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._gather, name="agreement", daemon=True)
                self._thread.start()
        self._finished.wait(wait_s)
        return self.progress()

    def read(self, rows: Sequence[int]) -> None:
        """Read these clips now, those that were not read yet; clips that are not done or damaged stay unknown."""
        wanted = [row for row in rows if not self._state[row] and self._reader.clips["done"][row] == 1]
        for run in self._runs(np.array(wanted, np.int64)):
            self._read(run)

    def _gather(self) -> None:
        try:
            for run in self._runs(self._order):
                if not self._state[run].all():
                    self._read(run)
        finally:
            self._finished.set()

    def _runs(self, order: np.ndarray) -> Iterator[np.ndarray]:
        """Clips in parts that can be read together: neighbours, without a whole unwritten chunk between them."""
        if not len(order):
            return
        clips = self._reader.clips
        begin, end = clips["offset"][order], clips["offset"][order] + clips["length"][order]
        gap = np.r_[0, begin[1:] - end[:-1]]
        first = 0
        for k in range(1, len(order) + 1):
            whole = k == len(order) or not 0 <= gap[k] < layout.CHUNK or end[k] - begin[first] > AT_ONCE
            if whole:
                yield order[first:k]
                first = k

    def _read(self, run: np.ndarray) -> None:
        """One part; where something in it cannot be read, clip by clip."""
        clips = self._reader.clips
        start = int(clips["offset"][run[0]])
        begin = clips["offset"][run] - start
        end = begin + clips["length"][run]
        try:
            rows = self._reader.rows(start, start + int(end[-1]), self._names)
        except StoreError:
            if len(run) > 1:
                for row in run:
                    self._read(np.array([row]))
            else:
                self._state[run] = 2
            return
        flags = rows["flags"]
        similarity = rows.get("similarity", np.full(len(flags), np.nan)).astype(np.float32)
        known = layout.labelled(flags, flags) & np.isfinite(similarity)

        def total(values: np.ndarray) -> np.ndarray:
            sums = np.r_[0, np.cumsum(values, dtype=np.float64)]
            each: np.ndarray = sums[end] - sums[begin]
            return each

        face = (flags & layout.FACE_DETECTED) > 0
        count = total(known)
        self.labelled[run] = count
        self.marks["interpolated"][run] = total((flags & layout.FACE_INTERPOLATED) > 0)
        self.marks["unseen"][run] = total((flags & layout.FACE) == 0)
        self.marks["held"][run] = total(face & ((flags & layout.HELD) > 0))
        self.marks["silent"][run] = total((flags & layout.VOICE_ACTIVE) == 0)
        with np.errstate(invalid="ignore"):
            self.mean[run] = total(np.where(known, similarity, 0)) / np.where(count > 0, count, np.nan)
        self._state[run] = 1


def _lacks(reader: Reader) -> str:
    """Why a store has no soft labels; "" where it has."""
    try:
        fitted = reader.fit is not None
    except StoreError as error:
        return str(error)
    return "" if fitted else "the store has no fit yet, so no soft labels; precompute.py makes one from real clips"
