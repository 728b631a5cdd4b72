"""Intervals by cluster: whole sources are drawn, ties count half, few sources give a wide interval."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.similarity import auc
from store.similarity.intervals import auc_by_cluster, auc_by_draw, times_drawn


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(0, 3)), min_size=2, max_size=30),
    st.integers(0, 9),
)
def test_a_draw_is_the_auc_of_repeated_clips(clips, seed):
    scores, fake, times = (np.array(x) for x in zip(*clips, strict=True))
    found = auc_by_draw(scores, fake, times[None])[0]
    again = auc(
        np.repeat(scores[fake], times[fake]).astype(float), np.repeat(scores[~fake], times[~fake]).astype(float)
    )
    assert found == pytest.approx(again, nan_ok=True)


def sources(num, each, spread, seed=0):
    """Scores of clips of `num` sources whose levels differ by `spread`, each source with both classes."""
    rng = np.random.default_rng(seed)
    source = np.repeat(np.arange(num), each)
    fake = np.arange(num * each) % 2 == 1
    return fake + rng.standard_normal(len(fake)) + spread * rng.standard_normal(num)[source] * fake, fake, source


def test_sources_that_differ_widen_the_interval():
    scores, fake, source = sources(15, 40, 2.0)
    low, high = auc_by_cluster(scores, fake, source)
    alone = auc_by_cluster(scores, fake, np.arange(len(scores)))
    value = auc(scores[fake], scores[~fake])
    assert low < alone[0] < value < alone[1] < high


def test_few_sources_count_as_few_clips():
    scores, fake, source = sources(3, 200, 0.0)
    low, high = auc_by_cluster(scores, fake, source)
    many = auc_by_cluster(scores, fake, np.arange(len(scores)))
    assert high - low > 3 * (many[1] - many[0])
    assert 0 <= low < high <= 1


def test_weights_and_classes():
    scores, fake, source = sources(12, 10, 0.5)
    twice = np.tile(scores, 2), np.tile(fake, 2), np.tile(source, 2)
    once = auc_by_cluster(scores, fake, source)
    assert auc_by_cluster(*twice, weights=np.r_[np.ones(120), np.zeros(120)]) == once
    assert auc_by_cluster(scores, fake, source, np.full(120, 3.0)) == once
    assert np.isnan(auc_by_cluster(scores, np.ones(120, bool), source)).all()
    assert (times_drawn(7, 20, 0).sum(1) == 7).all()
