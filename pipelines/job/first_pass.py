"""Pass one: batches stream through the workers, and each shard is packed as soon as all of its batches are staged.

Work interrupted by the infrastructure is resumed. Finished clips are marked in the books from time to time.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from concord.text import counted
from pipelines.errors import RunError
from pipelines.job.books import Books
from pipelines.job.usage import Summary, first_line
from pipelines.ui import progress
from pipelines.workers import pack, plan
from pipelines.workers.chain import Chain, Hands, Staged
from pipelines.workers.plan import Batch, ShardGroup, Slot
from pipelines.workers.work import Receipt, Work
from store.place import Place

log = logging.getLogger(__name__)

WAVE = 2048  # batches given to Ray Data at once, so that its memory, like the driver's, does not grow with the corpus
FRUITLESS = 3  # the run ends after workers are lost this many times in a row before they finish anything
MARK_EVERY_S = 20.0  # a mark writes the whole ledger
PACKING = 2  # shards packed at the same time before the driver waits for one


class FirstPass:
    """Watches, embeds, stages and packs clips that have slots."""

    def __init__(self, books: Books, chain: Chain, summary: Summary, hands: Callable[[], Hands]) -> None:
        """`hands` gives what does the work; it is called if there is some."""
        self.books, self.chain, self.summary, self.hands = books, chain, summary, hands

    def run(self, slots: Sequence[Slot]) -> dict[int, int]:
        """Process these slots; returns the decoded length of each clip that did not fit its slot, by row."""
        groups = plan.groups(slots)
        if not groups:
            self.books.write_ledger()
            return {}
        hands = self.hands()
        staged = self.books.staged()
        shards = _Shards(self.books.root, groups, hands)
        todo = {batch.name: batch for batch in shards.batches if batch.name not in staged}
        frames = {batch.name: batch.frames for batch in todo.values()}
        clips = sum(len(batch.slots) for batch in todo.values())
        if clips < len(slots):
            log.info(
                "%s from an earlier run, to be packed only",
                counted(len(slots) - clips, "clip is staged", "clips are staged"),
            )
        late: dict[int, int] = {}
        tally = hands.tally()
        shown = progress.Pass("pass one", clips, sum(frames.values()), ("face", "asr", "vsr"))
        with progress.shown(shown, lambda: hands.counts(tally)) as show:
            for batch in shards.batches:
                if batch.name in staged:
                    late |= self._packed(shards, batch.name)
            for done in self._stream(todo, hands, tally):
                self.books.bring(done.name, done.receipts)
                late |= self._packed(shards, done.name)
                failed = [receipt.stage for receipt in done.receipts if not receipt.ok]
                show.advance(len(done.receipts), frames[done.name], failed)
                self.summary.usage.add(done.spans)
            shards.collect(everything=True)
        return late | self.books.mark(shards.take_packed())

    def _packed(self, shards: _Shards, staged: str) -> dict[int, int]:
        """Count a batch as staged and, if it is time, mark the packed batches; returns as `run`."""
        shards.count(staged)
        if shards.packed and time.monotonic() - self.books.marked_at > MARK_EVERY_S:
            return self.books.mark(shards.take_packed())
        return {}

    def _stream(self, todo: dict[str, Batch], hands: Hands, tally: Any) -> Iterator[Staged]:
        """Yields batches as they are staged, until all are, and removes them from `todo`. Raises RunError if workers
        are lost repeatedly."""
        fruitless = 0
        while todo:
            now = [self._work(batch) for batch in itertools.islice(todo.values(), WAVE)]
            before = len(todo)
            try:
                for done in hands.stream(now, self.chain, tally):
                    del todo[done.name]
                    yield done
            except Exception as error:
                if not hands.lost(error):
                    raise
                self.summary.breaks += 1
                left = counted(len(todo), "batch", "batches")
                log.warning("workers were lost (%s); continuing with %s", first_line(error), left)
            fruitless = fruitless + 1 if len(todo) == before else 0
            if fruitless == FRUITLESS:
                raise RunError(f"workers were lost before they finished anything, {FRUITLESS} times in a row")

    def _work(self, batch: Batch) -> Work:
        rows = [self.books.rows[slot.clip] for slot in batch.slots]
        receipts = [Receipt(slot.clip, row.id, row.path) for slot, row in zip(batch.slots, rows, strict=True)]
        return Work(batch.name, list(batch.slots), rows, receipts)


class _Shards:
    """The batches of each group of shards: those not staged yet, and the groups that are being packed."""

    def __init__(self, root: Place, groups: Sequence[ShardGroup], hands: Hands) -> None:
        self.root, self.hands = root, hands
        self.packed: list[str] = []  # batches with written shards whose clips are not marked yet
        own = {group.first: plan.batches(group) for group in groups}
        self.batches = [batch for some in own.values() for batch in some]
        self._names = {first: sorted(batch.name for batch in some) for first, some in own.items()}
        self._missing = {first: set(names) for first, names in self._names.items()}
        self._group_of = {batch.name: group for group in groups for batch in own[group.first]}
        self._packing: dict[Any, ShardGroup] = {}  # by the task's ticket

    def count(self, batch: str) -> None:
        """A batch is staged; if it was the last of its group, the group is packed."""
        group = self._group_of[batch]
        self._missing[group.first].discard(batch)
        if not self._missing[group.first]:
            ticket = self.hands.begin(pack.pack, self.root, group, self._names[group.first])
            self._packing[ticket] = group
        self.collect()

    def collect(self, everything: bool = False) -> None:
        """Collect finished packers. Waits for `everything`, or for those beyond PACKING. Raises a packer's error."""
        while self._packing:
            ticket = self.hands.ended(list(self._packing), everything or len(self._packing) > PACKING)
            if ticket is None:
                return
            self.hands.answer(ticket)
            self.packed += self._names[self._packing.pop(ticket).first]

    def take_packed(self) -> list[str]:
        """Batches packed since the last call."""
        taken, self.packed = self.packed, []
        return taken
