"""The books of a run: the clips of the store, the outcome of each, and which of them are finished.

Manifest, clips table and ledger are kept in memory and always written completely; only the driver writes them.
`clips/done` is written last, so that after a kill either all clips of a mark are done or none, and the next run packs
the staged ones again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import store
from pipelines.corpora import manifest
from pipelines.corpora.manifest import Row
from pipelines.job.usage import Summary
from pipelines.reasons import INFRASTRUCTURE, OVERFLOW
from pipelines.tables import kept, ledger, traces
from pipelines.tables.ledger import Entry
from pipelines.workers import headers, pack
from pipelines.workers.headers import Unread
from pipelines.workers.plan import Slot
from pipelines.workers.work import Receipt
from store import staging
from store.layout import FPS

COPIED = (
    "id",
    "path",
    "corpus",
    "split",
    "method",
    "category",
    "group",
    "source",
    "label",
    "audio_fake",
    "video_fake",
)  # fields of a row
KNOWN_LATER = (
    "length",
    "duration",
    "start_skew",
    "quality",
    "num_faces",
    "done",
)  # columns that are known once the clip is decoded
AGAIN = frozenset({"", OVERFLOW, *INFRASTRUCTURE})  # reasons of clips that every run tries again


class Books:
    """Rows in the order of the clips table, ledger entries by clip id, and receipts that are not entered yet."""

    def __init__(self, writer: store.Writer, reader: store.Reader, given: Sequence[Row], summary: Summary) -> None:
        """The books of the existing store; `given` are the rows of the requested corpora, from which a lost manifest
        can be rebuilt. Lost tables are written again. Raises UsageError if the rows do not suffice."""
        self.writer, self.root, self.summary = writer, reader.place, summary
        tables = kept.read(reader, given)
        self.rows, self.entries = tables.rows, tables.entries
        self.tell: Callable[[], None] = lambda: None  # updates the report
        self.marked_at = time.monotonic()
        self._receipts: dict[str, list[Receipt]] = {}  # by batch
        if tables.anew:
            writer.begin()
            manifest.write(self.rows, self.root / kept.MANIFEST)
            self.write_ledger()

    def table(self) -> Mapping[str, np.ndarray]:
        """The present columns of `clips/` on disk."""
        return store.open(self.root).clips

    def unfinished(self, retry_failed: bool) -> list[int]:
        """Rows of clips to process: unfinished ones that did not fail by their own fault, or that are to be tried
        again."""
        done = self.table()["done"]
        failed = {row.id for row in self.rows if (e := self.entries.get(row.id)) and e.reason not in AGAIN}
        return [i for i, row in enumerate(self.rows) if not done[i] and (retry_failed or row.id not in failed)]

    def note_rule(self, name: str) -> None:
        """Note in the store what decides on the splits of its clips, so that later clips are not added without it."""
        self.writer.begin()
        if self.writer.attrs.get("splits_by") != name:
            self.writer.update_attrs({"splits_by": name})

    def append(self, new: Sequence[Row], slots: Sequence[Slot], unread: Iterable[Unread]) -> None:
        """Enter new clips into manifest and table, in that order, so that a kill between them loses nothing; the ledger
        is written by `write_ledger`. Clips without a slot could not be read."""
        self.writer.begin()
        first = len(self.rows)
        self.rows += new
        manifest.write(self.rows, self.root / kept.MANIFEST)
        self.enter_unread(unread)
        of = {slot.clip: slot for slot in slots}
        placed = [of.get(first + k, Slot(first + k, -1, 0, 0)) for k in range(len(new))]
        columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in new] for name in COPIED}
        columns["identities"] = [json.dumps(list(row.identities), ensure_ascii=False) for row in new]
        columns["offset"], columns["capacity"] = [s.offset for s in placed], [s.capacity for s in placed]
        columns["duration"] = [s.frames / FPS for s in placed]  # from the header, until the decoded length is known
        self.writer.append_clips(columns)

    def rehouse(self, slots: Sequence[Slot]) -> None:
        """Write new slots of clips that are in the table already. Each column is one write, for all of them."""
        first, last = min(slot.clip for slot in slots), max(slot.clip for slot in slots)
        table = self.table()
        new = {name: table[name][first : last + 1].copy() for name in ("offset", "capacity", "duration")}
        for slot in slots:
            k = slot.clip - first
            new["offset"][k], new["capacity"][k], new["duration"][k] = slot.offset, slot.capacity, slot.frames / FPS
        self.writer.write_clips(first, new)

    def resplit(self, moved: Mapping[str, str]) -> None:
        """Give clips another split, by id. The fit counts as unfinished from before the change until another is made, so
        that no fit stays that has learned from clips outside train."""
        self.writer.begin()
        if note := self.writer.attrs.get("similarity"):
            self.writer.update_attrs({"similarity": {**note, "complete": False}})
        self.rows = [replace(row, split=moved.get(row.id, row.split)) for row in self.rows]
        self.writer.write_clips(0, {"split": [row.split for row in self.rows]})
        manifest.write(self.rows, self.root / kept.MANIFEST)

    def reopen(self, clips: Sequence[int]) -> None:
        """Mark finished clips as not done."""
        self.writer.begin()
        done = self.table()["done"].copy()
        done[list(clips)] = 0
        self.writer.write_clips(0, {"done": done})

    def add_corpora(self) -> None:
        """Add corpora that the store's attributes lack, also those of a run that was killed before it did so."""
        there = self.writer.attrs.get("corpora", [])
        corpora = list(dict.fromkeys([*there, *(row.corpus for row in self.rows)]))
        if corpora != there:
            self.writer.update_attrs({"corpora": corpora})

    def enter_unread(self, found: Iterable[Unread]) -> None:
        """Enter clips whose header could not be read into the ledger."""
        unread = list(found)
        for one in unread:
            self.entries[one.id] = unread_entry(one, self._attempts(one.id))
        self._keep(traces.Trace(one.id, headers.STAGE, one.trace) for one in unread)

    def staged(self) -> set[str]:
        """Batches that an earlier run staged. Those whose receipts cannot be read, such as another version's, are
        removed, so that they are computed again."""
        names = sorted(staging.staged(self.root))
        found = dict(zip(names, self.root.map(lambda name: pack.receipts_if_any(self.root, name), names), strict=True))
        staging.discard(self.root, [name for name in names if found[name] is None])
        self._receipts |= {name: receipts for name, receipts in found.items() if receipts is not None}
        return {name for name in names if found[name] is not None}

    def bring(self, batch: str, receipts: list[Receipt]) -> None:
        """Keep the receipts of a batch that this run staged, until the batch is marked."""
        self._receipts[batch] = receipts

    def mark(self, batches: Sequence[str]) -> dict[int, int]:
        """Enter the clips of packed batches, mark them done, remove their staging. Returns the decoded length of each
        clip that did not fit its slot, by row.

        Ledger and table are written completely, so do not call this often. Each column is one write.
        """
        self.marked_at = time.monotonic()
        receipts = [receipt for name in batches for receipt in self._receipts.pop(name)]
        for receipt in receipts:
            self._enter(receipt)
        self._keep(traces.Trace(r.id, r.stage, r.trace) for r in receipts)
        self.write_ledger()
        finished = [r for r in receipts if r.ok]
        if finished:
            self._mark_done(finished)
        self.summary.worked += len(finished)
        self.summary.video_seconds += sum(r.length for r in finished) / FPS
        staging.discard(self.root, batches)
        self.tell()
        return {r.clip: r.length for r in receipts if r.reason == OVERFLOW}

    def write_ledger(self) -> None:
        """Write the ledger, in the order of the clips table."""
        ledger.write(self.root, [self.entries[row.id] for row in self.rows if row.id in self.entries])

    def close(self, seconds: float) -> Summary:
        """The summary, with the present contents of the store and the duration of the run."""
        done = self.table()["done"]
        self.summary.clips, self.summary.done = len(done), int((done == 1).sum())
        entries = [e for row in self.rows if (e := self.entries.get(row.id))]
        self.summary.failed = [e for e in entries if e.reason]
        self.summary.notes = [e.notes for e in entries if e.notes]
        self.summary.seconds = seconds
        return self.summary

    def _enter(self, receipt: Receipt) -> None:
        before = self.entries.get(receipt.id)
        message = receipt.message
        if receipt.ok and before and before.reason == OVERFLOW:
            message = before.message  # it tells of the new slot of a clip that is done now
        self.entries[receipt.id] = Entry(
            receipt.id,
            receipt.path,
            receipt.stage,
            receipt.reason,
            message,
            self._attempts(receipt.id) + receipt.attempts,
            round(receipt.seconds, 3),
            receipt.worker,
            receipt.notes,
        )

    def _mark_done(self, finished: Sequence[Receipt]) -> None:
        first, last = min(r.clip for r in finished), max(r.clip for r in finished)
        table = self.table()
        new = {name: table[name][first : last + 1].copy() for name in KNOWN_LATER}
        for r in finished:
            k = r.clip - first
            new["length"][k], new["duration"][k] = r.length, r.length / FPS
            new["start_skew"][k], new["quality"][k] = r.start_skew, r.quality
            new["num_faces"][k], new["done"][k] = r.num_faces, 1
        self.writer.write_clips(first, new)

    def _attempts(self, clip_id: str) -> int:
        """Attempts in earlier runs, or earlier in this run."""
        before = self.entries.get(clip_id)
        return before.attempts if before else 0

    def _keep(self, found: Iterable[traces.Trace]) -> None:
        """Keep tracebacks of unexpected errors."""
        if traces.add(self.root, found):
            self.summary.traces = str(self.root / traces.FILE)


def unread_entry(found: Unread, attempts_before: int = 0) -> Entry:
    """The ledger entry of a clip whose header could not be read."""
    return Entry(
        found.id,
        found.path,
        headers.STAGE,
        found.reason,
        found.message,
        attempts_before + found.attempts,
        found.seconds,
        found.worker,
    )
