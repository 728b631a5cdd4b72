"""A stream gives each window once, whatever the workers and ranks, and the same batches for any number of workers."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_store import make_store
from torch.utils import data as torch_data
from torch.utils.data import DataLoader

import store
from store.dataset import loading
from store.dataset.shuffle import shuffled
from store.layout import StoreError

LIMIT = 120  # seconds until a loader whose worker hangs says so


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = make_store(tmp_path_factory.mktemp("store") / "s.zarr", {"train": 8}, frames=(40, 60), shard_rows=100)
    return store.Dataset(path, ["audio"], window=10, swaps=0.5, trim="none", seed=5)


def key(window):
    """What tells a window of the store; rows of a batch as several."""
    both = torch.stack([torch.as_tensor(window[name]) for name in ("clip", "start")], -1)
    return [tuple(row) for row in both.reshape(-1, 2).tolist()]


def every(data):
    return sorted(zip(data.clips.tolist(), data.starts.tolist(), strict=True))


@given(
    world=st.integers(1, 5),
    workers=st.integers(0, 4),
    size=st.one_of(st.none(), st.integers(1, 9)),
    shuffle=st.booleans(),
    drop=st.booleans(),
    epoch=st.integers(0, 3),
)
@settings(max_examples=60)
def test_every_window_comes_once(data, world, workers, size, shuffle, drop, epoch):
    data.set_epoch(epoch)
    seen, batches = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.Dataset, "__getitem__", lambda self, i: {"clip": self.clips[i], "start": self.starts[i]})
        for rank in range(world):
            stream = store.Stream(data, size, shuffle=shuffle, drop_last=drop, rank=rank, world=world)
            own = []
            for worker in range(max(1, workers)):
                info = SimpleNamespace(id=worker, num_workers=workers) if workers else None
                patch.setattr(torch_data, "get_worker_info", lambda info=info: info)
                own += [key(batch) for batch in stream]
            assert len(own) == len(stream)
            batches.append(len(own))
            seen += [window for batch in own for window in batch]
    assert len(set(seen)) == len(seen)
    if drop:
        assert len(set(batches)) == 1
        assert len(data) - len(seen) < world * (size or 1)
    else:
        assert sorted(seen) == every(data)
        assert max(batches) - min(batches) <= 1


def test_without_a_shuffle_the_order_is_the_stores(data):
    stream = store.Stream(data, None, shuffle=False)
    assert [key(window)[0] for window in stream] == every(data)
    assert len(stream) == len(data)


def test_the_order_is_drawn_by_seed_and_epoch(data):
    def order(epoch):
        data.set_epoch(epoch)
        return store.Stream(data).order().tolist()

    assert order(0) == order(0) != order(1)
    assert order(0) != sorted(order(0))
    other = store.Dataset(data.path, [], window=10, trim="none", seed=6)
    assert store.Stream(other).order().tolist() != order(0)


def test_shuffling_stays_within_few_shards(data):
    """Shards are shuffled, then windows within the buffer."""
    data.set_epoch(0)
    stream = store.Stream(data, buffer=1)
    shards = data.shards[stream.order()]
    assert np.count_nonzero(np.diff(shards)) == len(np.unique(shards)) - 1
    assert np.count_nonzero(np.diff(data.shards[store.Stream(data).order()])) > len(np.unique(shards))


def test_counts_repeat_positions():
    order = shuffled(np.array([0, 0, 1]), np.array([2, 0, 3]), 4, np.random.default_rng(0))
    assert sorted(order.tolist()) == [0, 0, 2, 2, 2]


def taken(loader):
    return [{name: value.numpy().tobytes() for name, value in batch.items()} for batch in loader]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_batches_do_not_depend_on_the_number_of_workers(data):
    """Workers by fork, after this process has read from the store."""
    data.set_epoch(1)
    stream = store.Stream(data, 8)
    alone = taken(DataLoader(stream, batch_size=None))
    assert len(alone) == len(stream)
    assert taken(DataLoader(stream, batch_size=None, num_workers=2, timeout=LIMIT)) == alone
    by_number = taken(DataLoader(data, batch_size=8))
    assert taken(DataLoader(data, batch_size=8, num_workers=2, timeout=LIMIT)) == by_number


def test_a_fork_opens_the_store_again_and_refuses_one_in_a_bucket(data, monkeypatch):
    """What a bucket's connections would wait for died with the fork; a spawned worker has a copy, which opens it."""
    parents = data.reader
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert data.reader is not parents
    monkeypatch.setattr(data, "path", "s3://bucket/s.zarr")
    assert data.reader is data.reader
    monkeypatch.setattr(os, "getpid", lambda: 2)
    with pytest.raises(
        StoreError, match=r"forked workers cannot read from a bucket; .* multiprocessing_context='spawn'"
    ):
        data[0]


@pytest.mark.slow
def test_workers_that_stay_learn_of_the_next_epoch(data):
    """Spawned: a dataset that was pickled still hears of `set_epoch`."""
    options = {"num_workers": 2, "multiprocessing_context": "spawn", "persistent_workers": True, "timeout": LIMIT}
    stream = store.Stream(data, 8)
    kept = DataLoader(stream, batch_size=None, **options)
    for epoch in (0, 1, 2):
        data.set_epoch(epoch)
        assert taken(kept) == taken(DataLoader(stream, batch_size=None))


def test_ranks_are_those_of_torch_distributed(data, monkeypatch):
    monkeypatch.setattr(loading.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(loading.distributed, "get_rank", lambda: 2)
    monkeypatch.setattr(loading.distributed, "get_world_size", lambda: 3)
    stream = store.Stream(data)
    assert (stream.rank, stream.world) == (2, 3)
    assert (store.Stream(data, rank=0, world=1).rank, store.Stream(data, rank=0, world=1).world) == (0, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 2, "world": 2}, "rank 2 of 2: ranks are counted from 0"),
        ({"rank": -1, "world": 2}, "rank -1 of 2"),
        ({"batch_size": 0}, "batch_size and buffer must be at least 1, not 0"),
        ({"buffer": 0}, "batch_size and buffer must be at least 1, not 8 and 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number, not 2.5"),
        ({"batch_size": True}, "batch_size must be a whole number, not True"),
        ({"buffer": 9.0}, "buffer must be a whole number, not 9.0"),
        ({"rank": 0.5, "world": 2}, "rank must be a whole number, not 0.5"),
        ({"rank": 0, "world": 1.5}, "world must be a whole number, not 1.5"),
    ],
)
def test_what_cannot_be_given_is_said_in_a_sentence(data, options, said):
    with pytest.raises(StoreError, match=said):
        store.Stream(data, **options)
    with pytest.raises(StoreError, match="an epoch must not be negative"):
        data.set_epoch(-1)
