"""The place of every clip in the store, and its batch: a function of the manifest and the headers, never of timing.

A clip gets a slot, rows reserved in manifest order; a slot never crosses a shard's border unless it is longer than a
shard; then it starts at a shard's border and no other clip uses its shards. The unit of work is a batch: clips of one
shard of similar length, at most 8 clips or 1,000 frames, so that padding is small and, like every bit, the same in
every run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from store.layout import CHUNK, FPS, SHARD

BATCH_CLIPS = 8
BATCH_FRAMES = 1000
BATCH_WASTE = 0.1  # frames of padding, as a share of the clips' own frames


@dataclass(frozen=True)
class Slot:
    """Rows [offset, offset + capacity) of the frames table, for clip row `clip` of the clips table, with `frames` in
    its header."""

    clip: int
    offset: int
    capacity: int
    frames: int


@dataclass(frozen=True)
class Batch:
    """Neighbouring slots of one shard group, processed together. The name follows from the slots, so a later run finds
    it."""

    slots: tuple[Slot, ...]

    @property
    def name(self) -> str:
        return f"{self.slots[0].offset:012d}-{self.slots[0].clip:09d}-{len(self.slots)}"

    @property
    def frames(self) -> int:
        return sum(slot.frames for slot in self.slots)


@dataclass(frozen=True)
class ShardGroup:
    """Shards [first, last] that are packed together: one, or all those of a clip longer than a shard."""

    first: int
    last: int
    slots: tuple[Slot, ...]


def place(capacities: Sequence[tuple[int, int]], start: int) -> list[Slot]:
    """Slots for (clip row, frames) in the order given, from the first shard boundary at or after row `start`.

    Capacities are rounded up to whole chunks, so that windows of whole chunks do not read a neighbour's frames.
    """
    cursor = _up(start, SHARD)
    slots = []
    for clip, frames in capacities:
        capacity = _up(max(frames, 1), CHUNK)
        if cursor % SHARD + capacity > SHARD:
            cursor = _up(cursor, SHARD)
        slots.append(Slot(clip, cursor, capacity, max(frames, 1)))
        cursor += capacity
        if capacity > SHARD:
            cursor = _up(cursor, SHARD)
    return slots


def placed(columns: Mapping[str, np.ndarray]) -> list[Slot]:
    """The slots of clips in the clips table `columns`; for an unfinished clip `duration` is the header's."""
    promised = np.where(np.isnan(columns["duration"]), columns["capacity"], np.round(columns["duration"] * FPS))
    promised = np.maximum(promised, 1)
    columns_of_slots = (columns["offset"].tolist(), columns["capacity"].tolist(), promised.astype(int).tolist())
    return [Slot(i, *values) for i, values in enumerate(zip(*columns_of_slots, strict=True)) if values[0] >= 0]


def groups(slots: Iterable[Slot]) -> list[ShardGroup]:
    """Slots by the shards that hold them, in the order of rows."""
    found: dict[tuple[int, int], list[Slot]] = {}
    for slot in sorted(slots, key=lambda s: (s.offset, s.clip)):
        key = slot.offset // SHARD, (slot.offset + slot.capacity - 1) // SHARD
        found.setdefault(key, []).append(slot)
    return [ShardGroup(first, last, tuple(members)) for (first, last), members in sorted(found.items())]


def batches(group: ShardGroup) -> list[Batch]:
    """The group's slots in batches of clips of similar length: at most 8 clips or 1,000 frames, and at most a tenth
    more frames when padded to the longest. Within a batch slots are in manifest order."""
    found: list[Batch] = []
    pending: list[Slot] = []
    for slot in sorted(group.slots, key=lambda s: (s.frames, s.offset)):
        together = [*pending, slot]
        if pending and (
            len(together) > BATCH_CLIPS
            or len(together) * slot.frames > BATCH_FRAMES
            or len(together) * slot.frames > (1 + BATCH_WASTE) * sum(s.frames for s in together)
        ):
            found.append(_batch(pending))
            pending = []
        pending.append(slot)
    if pending:
        found.append(_batch(pending))
    return sorted(found, key=lambda batch: batch.slots[0].offset)


def _batch(slots: list[Slot]) -> Batch:
    return Batch(tuple(sorted(slots, key=lambda s: s.offset)))


def num_rows(slots: Iterable[Slot]) -> int:
    """Rows of the frames table that the slots need: whole shards."""
    return _up(max((slot.offset + slot.capacity for slot in slots), default=0), SHARD)


def clips_of_shard(columns: Mapping[str, np.ndarray], shard: int) -> list[int]:
    """Rows of finished clips with frames in the shard; `columns` is the clips table."""
    start, stop = shard * SHARD, (shard + 1) * SHARD
    offset = columns["offset"]
    inside = (columns["done"] == 1) & (offset >= 0) & (offset < stop) & (offset + columns["length"] > start)
    return np.flatnonzero(inside).tolist()


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
