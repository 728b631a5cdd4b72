"""Sampling by source: each source has the same share of an epoch, whatever its number of clips; the default is untouched."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_store import make_store

import store
from student.config import ConfigError, DataConfig, TrainConfig, differences
from student.data.corpus import Corpus, strata
from student.data.dataset import Keys
from student.data.order import drawn, epoch_order, expected, expected_shares

WINDOW = 25
BY_CLIP = DataConfig(window=WINDOW, batch_size=2)
BY_SOURCE = replace(BY_CLIP, balance="source")


def corpus_of(lengths, stratum, label=None):
    """Training clips with these spans in frames and these strata; every second clip of the table is not used."""
    n = 2 * len(lengths)
    length, kinds, labels = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    rows = np.arange(0, n, 2)
    length[rows], kinds[rows] = lengths, stratum
    labels[rows] = 0 if label is None else label
    names = np.array(["c"] * n)
    return Corpus(
        rows, np.zeros(n, np.int64), length, np.arange(n) // 7, labels, np.ones(n, np.float32), names, kinds, labels
    )


clips = st.lists(st.tuples(st.integers(WINDOW, 400), st.integers(0, 5)), min_size=1, max_size=40)


@settings(deadline=None, max_examples=15)
@given(clips, st.integers(0, 99), st.integers(0, 99))
def test_an_epoch_is_as_long_as_before_and_each_stratum_has_its_share(some, seed, epoch):
    corpus = corpus_of(*zip(*some, strict=True))
    counts, mean = drawn(corpus, BY_SOURCE, seed, epoch), expected(corpus, BY_SOURCE)
    whole = int((corpus.length[corpus.rows] // WINDOW).sum())
    order = epoch_order(corpus, BY_SOURCE, seed, epoch)
    assert counts.sum() == len(order) == whole
    assert Counter(order.tolist()) == {int(r): n for r, n in zip(corpus.rows, counts.tolist(), strict=True) if n}
    assert (np.abs(counts - mean) < 1 + 1e-6).all()
    kinds = corpus.stratum[corpus.rows]
    for kind in np.unique(kinds):
        assert mean[kinds == kind].sum() == pytest.approx(whole / len(np.unique(kinds)))
        assert abs(counts[kinds == kind].sum() - whole / len(np.unique(kinds))) < 1 + 1e-6
    assert np.array_equal(order, epoch_order(corpus, BY_SOURCE, seed, epoch))


@settings(deadline=None, max_examples=8)
@given(clips, st.integers(0, 99), st.integers(1, 4))
def test_ranks_share_the_windows_of_the_same_epoch(some, seed, world):
    corpus = corpus_of(*zip(*some, strict=True))
    order = epoch_order(corpus, BY_SOURCE, seed, 0)
    for rank in range(world):
        keys = Keys(corpus, BY_SOURCE, seed, rank, world)
        for key in keys:
            assert [int(order[p]) for p in key.positions] == list(key.clips)
        assert keys.windows == len(order)


def test_on_average_each_stratum_and_clip_has_what_is_expected():
    corpus = corpus_of([30, 80, 200, 60, 60, 25, 25], [0, 0, 0, 0, 1, 1, 2])
    mean = np.mean([drawn(corpus, BY_SOURCE, 3, e) for e in range(4000)], axis=0)
    assert mean == pytest.approx(expected(corpus, BY_SOURCE), abs=0.05)
    assert len({tuple(drawn(corpus, BY_SOURCE, 3, e)) for e in range(9)}) > 1


@settings(deadline=None, max_examples=8)
@given(clips, st.integers(0, 99))
def test_by_clip_nothing_changes(some, seed):
    """Runs of earlier releases resume with the same windows."""
    corpus = corpus_of(*zip(*some, strict=True))
    assert np.array_equal(drawn(corpus, BY_CLIP, seed, 1), corpus.length[corpus.rows] // WINDOW)
    other = replace(corpus, stratum=corpus.stratum[::-1].copy())
    assert np.array_equal(epoch_order(corpus, BY_CLIP, seed, 1), epoch_order(other, BY_CLIP, seed, 1))


def test_class_weights_follow_the_windows_that_are_drawn():
    corpus = corpus_of([100] * 9 + [100], [0] * 9 + [1], label=[0] * 9 + [1])
    alone = replace(BY_SOURCE, pair_share=0.0)
    assert expected_shares(corpus, alone) == pytest.approx((20, 20))
    assert expected_shares(corpus, replace(alone, balance="clips")) == pytest.approx((36, 4))


def test_sources_are_told_apart_by_corpus_and_methods_by_source(tmp_path):
    path = make_store(tmp_path / "s.zarr", {"train": 6}, fakes=4)
    writer = store.Writer.open(path)
    columns = {
        "corpus": ["a", "a", "a", "b", "b", "b", "a", "b", "a", "a"],
        "source": ["x", "x", "", "x", "", "", "x", "x", "x", ""],
        "method": [""] * 6 + ["m", "m", "n", "m"],
    }
    writer.write_clips(0, columns)
    writer.consolidate()
    found = strata(store.open(path))
    same = [[i for i in range(10) if found[i] == k] for k in dict.fromkeys(found.tolist())]
    assert same == [[0, 1], [2], [3], [4, 5], [6, 7], [8], [9]]


def test_a_run_that_was_saved_without_the_option_is_by_clip():
    saved = json.loads(json.dumps(TrainConfig("s", "o").to_dict()))
    del saved["data"]["balance"]
    old = TrainConfig.from_dict(saved)
    assert old.data.balance == "clips"
    assert differences(old, TrainConfig.from_options(store="s", output="o", balance="clips", w_projection=0.0)) == []
    other = TrainConfig.from_options(store="s", output="o", balance="source", w_projection=0.0)
    assert differences(old, other) == ["balance clips -> source"]
    with pytest.raises(ConfigError, match="--balance must be one of clips, source, not people"):
        DataConfig(balance="people")
