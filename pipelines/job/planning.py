"""From headers to slots: the declared length of each clip, and the rows of the store that are reserved for it.

Slots follow the order of the manifest (`pipelines.workers.plan`), and new ones come after all existing ones, so the
contents of a store depend on its commands and not on timing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from concord.text import counted
from pipelines.corpora.manifest import Row
from pipelines.job import space
from pipelines.job.books import Books
from pipelines.workers import plan
from pipelines.workers.chain import Spread
from pipelines.workers.headers import Unread, probe_rows
from pipelines.workers.plan import Slot

log = logging.getLogger(__name__)

PROBES = 256  # headers read by one task


class Planner:
    """Assigns slots to clips; `top` is the first free row of the frames table."""

    def __init__(
        self, books: Books, arrays: tuple[str, ...], clip_timeout: float | None, attempts: int, spread: Spread
    ) -> None:
        """`arrays` are the optional ones that the store has; `clip_timeout` and `attempts` are for reading headers.
        Extends the frames table if a run died after it assigned slots."""
        self.books, self.arrays, self.spread = books, arrays, spread
        self.limits = clip_timeout, attempts
        table = books.table()
        self.top = int((table["offset"] + table["capacity"]).max(initial=0))
        if self.top > books.writer.num_rows:
            books.writer.grow_rows(self.top)

    def append(self, new: Sequence[Row], pending: Iterable[int]) -> list[int]:
        """Read the headers of new clips, reserve slots, and enter them into the books; the rows of those that have a slot.

        Raises UsageError if the disk has no space for them and for the clips that are `pending`.
        """
        log.info("reading the headers of %s", counted(len(new), "new clip"))
        found = self._probe(new)
        wanted = [(len(self.books.rows) + k, frames) for k, frames in enumerate(found) if isinstance(frames, int)]
        promised = sum(slot.frames for slot in self._placed(pending)) + sum(frames for _, frames in wanted)
        warning = space.check(self.books.root, promised, space.dims(self.books.writer.frame_arrays), self.arrays)
        if warning:
            log.warning("%s", warning)
        slots = self._place(wanted)
        self.books.append(new, slots, [one for one in found if isinstance(one, Unread)])
        self.books.writer.grow_rows(self.top)
        self.books.write_ledger()
        return [slot.clip for slot in slots]

    def slots(self, pending: Sequence[int]) -> list[Slot]:
        """Slots of clips to process. Clips without one, because their header could not be read, are probed again."""
        offsets = self.books.table()["offset"]
        homeless = [clip for clip in pending if offsets[clip] < 0]
        slots = self._placed(pending)
        found = self._probe([self.books.rows[clip] for clip in homeless])
        self.books.enter_unread(one for one in found if isinstance(one, Unread))
        wanted = [(clip, frames) for clip, frames in zip(homeless, found, strict=True) if isinstance(frames, int)]
        return slots + self.rehouse(wanted) if wanted else slots

    def rehouse(self, wanted: Sequence[tuple[int, int]]) -> list[Slot]:
        """New slots for clips that are in the table already, as (row, frames)."""
        slots = self._place(wanted)
        self.books.rehouse(slots)
        self.books.writer.grow_rows(self.top)
        return slots

    def _place(self, wanted: Sequence[tuple[int, int]]) -> list[Slot]:
        """New slots after all existing ones."""
        slots = plan.place(wanted, self.top)
        self.top = max(self.top, plan.num_rows(slots))
        return slots

    def _placed(self, clips: Iterable[int]) -> list[Slot]:
        """The present slots of these clips."""
        wanted = set(clips)
        return [slot for slot in plan.placed(self.books.table()) if slot.clip in wanted]

    def _probe(self, rows: Sequence[Row]) -> list[int | Unread]:
        """The declared lengths in the headers, read by the cluster's workers."""
        options = self.books.root.options
        jobs = [(list(rows[k : k + PROBES]), *self.limits, options) for k in range(0, len(rows), PROBES)]
        return [answer for part in self.spread(probe_rows, jobs) for answer in part]
