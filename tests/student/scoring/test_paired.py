"""Arms on the same trials: a difference is that of the AUCs, its interval is paired; ties and groups count as elsewhere."""

import numpy as np
import pytest

from student.scoring.metrics import auc, auc_interval
from student.scoring.paired import difference, mean_auc, mean_share, share_difference


def trials(seed=0, n=200, groups=40):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    hidden = rng.standard_normal(n)
    scores = np.stack([labels + hidden + 0.3 * rng.standard_normal(n) for _ in range(3)]).round(1)  # with ties
    return scores, labels, np.array([f"p{k % groups}" for k in range(n)])


def test_one_seed_has_the_interval_of_metrics():
    scores, labels, groups = trials()
    found = mean_auc(scores[:1], labels, groups)
    assert (found.low, found.high) == pytest.approx(auc_interval(scores[0], labels, groups), abs=1e-12)
    assert found.value == auc(scores[0], labels) == found.by_seed[0]


def test_a_difference_is_that_of_the_aucs_and_its_interval_is_paired():
    scores, labels, groups = trials()
    other = scores + 0.3 * np.random.default_rng(1).standard_normal(scores.shape)
    found = difference(scores, other, labels, groups)
    a, b = mean_auc(scores, labels, groups), mean_auc(other, labels, groups)
    assert found.value == pytest.approx(a.value - b.value)
    assert found.by_seed == pytest.approx([x - y for x, y in zip(a.by_seed, b.by_seed, strict=True)])
    assert found.low <= found.value <= found.high
    assert found.high - found.low < 0.5 * (a.high - a.low)  # the same people are drawn for both
    none = difference(scores, scores, labels, groups)
    assert (none.value, none.low, none.high) == (0, 0, 0)


def test_whole_groups_are_drawn():
    """Copies of one person's clips add nothing."""
    scores, labels, _ = trials(n=60)
    people = np.arange(60)
    once = mean_auc(scores, labels, people)
    four = mean_auc(np.tile(scores, 4), np.tile(labels, 4), np.tile(people, 4))
    assert four.high - four.low == pytest.approx(once.high - once.low, rel=0.25)


def test_one_class_has_no_figure():
    scores, _, groups = trials()
    found = difference(scores, scores, np.ones(200, int), groups)
    assert np.isnan([found.value, found.low, found.high]).all()


def test_shares_of_pairs():
    rng = np.random.default_rng(0)
    right, other = rng.random((2, 100)) < 0.8, rng.random((2, 100)) < 0.4
    groups = np.arange(100) // 2
    found, apart = mean_share(right, groups), share_difference(right, other, groups)
    assert found.value == pytest.approx(right.mean())
    assert found.low < found.value < found.high
    assert apart.value == pytest.approx(right.mean() - other.mean())
    assert 0 < apart.low < apart.value < apart.high
    assert np.isnan(mean_share(right[:, :0], groups[:0]).value)
    assert np.isnan(share_difference(right[:, :0], other[:, :0], groups[:0]).value)
