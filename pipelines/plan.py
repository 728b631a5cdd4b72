"""Where every clip goes and in which batch it is worked on: a function of the manifest and the headers, never of timing.

A clip gets a slot, rows reserved in manifest order; a slot never straddles a shard unless it is longer than one, in which
case it starts on a shard and has its shards to itself. The unit of work is a batch: neighbouring clips of one shard, at most 8
clips or 1,000 frames, so that padding, and with it every bit, is the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from store.layout import CHUNK, SHARD

BATCH_CLIPS = 8
BATCH_FRAMES = 1000


@dataclass(frozen=True)
class Slot:
    """Rows [offset, offset + capacity) of the frames table, for clip row `clip` of the clips table."""

    clip: int
    offset: int
    capacity: int


@dataclass(frozen=True)
class Batch:
    """Neighbouring slots of one shard group, worked on together. The name tells the slots, so resumed work finds it again."""

    slots: tuple[Slot, ...]

    @property
    def name(self) -> str:
        return f"{self.slots[0].offset:012d}-{self.slots[0].clip:09d}-{len(self.slots)}"

    @property
    def frames(self) -> int:
        return sum(slot.capacity for slot in self.slots)


@dataclass(frozen=True)
class ShardGroup:
    """Shards [first, last] that are packed together: one, or all those of a clip longer than a shard."""

    first: int
    last: int
    slots: tuple[Slot, ...]


def place(capacities: Sequence[tuple[int, int]], start: int) -> list[Slot]:
    """Slots for (clip row, frames) in the order given, from the first shard boundary at or after row `start`.

    Capacities are rounded up to whole chunks, so that windows of whole chunks read no neighbour's.
    """
    cursor = _up(start, SHARD)
    slots = []
    for clip, frames in capacities:
        capacity = _up(max(frames, 1), CHUNK)
        if cursor % SHARD + capacity > SHARD:
            cursor = _up(cursor, SHARD)
        slots.append(Slot(clip, cursor, capacity))
        cursor += capacity
        if capacity > SHARD:
            cursor = _up(cursor, SHARD)
    return slots


def groups(slots: Iterable[Slot]) -> list[ShardGroup]:
    """Slots by the shards that hold them, in the order of rows."""
    found: dict[tuple[int, int], list[Slot]] = {}
    for slot in sorted(slots, key=lambda s: (s.offset, s.clip)):
        key = slot.offset // SHARD, (slot.offset + slot.capacity - 1) // SHARD
        found.setdefault(key, []).append(slot)
    return [ShardGroup(first, last, tuple(members)) for (first, last), members in sorted(found.items())]


def batches(group: ShardGroup) -> list[Batch]:
    """The group's slots in batches of at most 8 clips or 1,000 frames; a longer clip is a batch of its own."""
    found: list[Batch] = []
    pending: list[Slot] = []
    for slot in group.slots:
        if pending and (len(pending) == BATCH_CLIPS or sum(s.capacity for s in pending) + slot.capacity > BATCH_FRAMES):
            found.append(Batch(tuple(pending)))
            pending = []
        pending.append(slot)
    return [*found, Batch(tuple(pending))] if pending else found


def num_rows(slots: Iterable[Slot]) -> int:
    """Rows of the frames table that the slots need: whole shards."""
    return _up(max((slot.offset + slot.capacity for slot in slots), default=0), SHARD)


def clips_of_shard(columns: Mapping[str, np.ndarray], shard: int) -> list[int]:
    """Rows of done clips that have frames in the shard; `columns` is the clips table."""
    start, stop = shard * SHARD, (shard + 1) * SHARD
    offset = columns["offset"]
    inside = (columns["done"] == 1) & (offset >= 0) & (offset < stop) & (offset + columns["length"] > start)
    return np.flatnonzero(inside).tolist()


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
