"""Slots and batches: properties that hold for any corpus."""

import itertools
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipelines.workers import plan
from store.layout import CHUNK, SHARD

FRAMES = st.lists(st.one_of(st.integers(0, 400), st.integers(SHARD - 30, 3 * SHARD)), min_size=1, max_size=80)


def slots_of(frames, start=0):
    return plan.place(list(enumerate(frames)), start)


@given(FRAMES, st.integers(0, 3 * SHARD))
def test_slots_keep_order_and_never_overlap(frames, start):
    slots = slots_of(frames, start)
    assert [s.clip for s in slots] == list(range(len(frames)))
    assert slots[0].offset >= start
    assert slots[0].offset % SHARD == 0
    for a, b in itertools.pairwise(slots):
        assert b.offset >= a.offset + a.capacity
    assert all(s.capacity >= n and s.capacity % CHUNK == 0 for s, n in zip(slots, frames, strict=True))


@given(FRAMES)
def test_a_slot_straddles_no_shard_unless_longer_than_one(frames):
    for slot in slots_of(frames):
        if slot.capacity <= SHARD:
            assert slot.offset // SHARD == (slot.offset + slot.capacity - 1) // SHARD
        else:
            assert slot.offset % SHARD == 0


@given(FRAMES)
def test_shard_groups_share_no_shard(frames):
    groups = plan.groups(slots_of(frames))
    assert sum(len(g.slots) for g in groups) == len(frames)
    for a, b in itertools.pairwise(groups):
        assert a.last < b.first


@given(FRAMES)
def test_batches_hold_every_slot_once_within_their_limits(frames):
    for group in plan.groups(slots_of(frames)):
        batches = plan.batches(group)
        assert sorted((s for b in batches for s in b.slots), key=lambda s: s.offset) == list(group.slots)
        for batch in batches:
            longest = max(s.frames for s in batch.slots)
            assert len(batch.slots) <= plan.BATCH_CLIPS
            assert len(batch.slots) * longest <= max(plan.BATCH_FRAMES, longest)
            assert len(batch.slots) * longest <= 1.1 * batch.frames or len(batch.slots) == 1
    names = [b.name for g in plan.groups(slots_of(frames)) for b in plan.batches(g)]
    assert len(set(names)) == len(names)


@given(FRAMES)
def test_a_resumed_run_finds_the_slots_in_the_table(frames):
    slots = slots_of(frames)
    columns = {
        "offset": np.array([-1, *(s.offset for s in slots)]),
        "capacity": np.array([0, *(s.capacity for s in slots)]),
        "duration": np.array([np.nan, *(s.frames / 25 for s in slots)], np.float32),
    }
    assert [replace(s, clip=s.clip - 1) for s in plan.placed(columns)] == slots


def test_num_rows_are_whole_shards():
    assert plan.num_rows([]) == 0
    assert plan.num_rows(slots_of([75])) == SHARD
    assert plan.num_rows(slots_of([75, SHARD])) == 2 * SHARD
