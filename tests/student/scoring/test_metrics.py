"""Figures against plain definitions, and the AUC against scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from student.scoring import metrics


def drawn(seed, n=200, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    scores = labels * 0.7 + rng.standard_normal(n)
    return (scores.round(1) if ties else scores), labels


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=30))
def test_auc_is_the_chance_that_a_fake_scores_above_a_real(rows):
    scores, labels = np.array([float(s) for s, _ in rows]), np.array([int(x) for _, x in rows])
    fake, real = scores[labels == 1], scores[labels == 0]
    if not len(fake) or not len(real):
        assert np.isnan(metrics.auc(scores, labels))
        return
    wins = (fake[:, None] > real).mean() + 0.5 * (fake[:, None] == real).mean()
    assert metrics.auc(scores, labels) == pytest.approx(wins)
    fpr, tpr, _ = metrics.roc(scores, labels)
    assert np.trapezoid(tpr, fpr) == pytest.approx(wins)


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_and_balanced_accuracy_are_what_they_are_called(ties):
    for seed in range(5):
        scores, labels = drawn(seed, ties=ties)
        precision = [labels[scores >= score].mean() for score in scores[labels == 1]]  # at each fake's own threshold
        assert metrics.average_precision(scores, labels) == pytest.approx(np.mean(precision))
        recalls = (scores >= 0.3)[labels == 1].mean(), (scores < 0.3)[labels == 0].mean()
        assert metrics.balanced_accuracy(scores, labels, 0.3) == pytest.approx(np.mean(recalls))


def test_the_auc_is_scikit_learns():
    from sklearn.metrics import roc_auc_score

    for seed in range(5):
        scores, labels = drawn(seed, ties=seed % 2 == 0)
        weights = np.random.default_rng(seed).uniform(0, 2, len(scores))
        for w in (None, weights):
            assert metrics.auc(scores, labels, w) == pytest.approx(roc_auc_score(labels, scores, sample_weight=w))


def test_equal_error_rate_of_known_scores():
    assert metrics.equal_error_rate(np.array([0.0, 1, 2, 3]), np.array([0, 0, 1, 1])) == 0
    assert metrics.equal_error_rate(np.array([3.0, 2, 1, 0]), np.array([0, 0, 1, 1])) == 1
    assert metrics.equal_error_rate(np.array([1.0, 1, 1, 1]), np.array([0, 0, 1, 1])) == pytest.approx(0.5)
    assert metrics.equal_error_rate(np.array([0.0, 2, 1, 3]), np.array([0, 0, 1, 1])) == pytest.approx(0.5)


def test_one_class_gives_nan_not_a_flattering_figure():
    found = metrics.figures(np.array([0.1, 0.2]), np.array([0, 0]), 0.5)
    assert (found.num_real, found.num_fake, found.prevalence, found.real_recall) == (2, 0, 0.0, 1.0)
    assert all(np.isnan(v) for v in (found.auc, found.ap, found.eer, found.balanced_accuracy))


def test_scores_that_are_not_finite_are_an_error():
    with pytest.raises(ValueError, match="not finite"):
        metrics.auc(np.array([0.0, np.nan]), np.array([0, 1]))


def test_threshold_lies_in_the_middle_of_the_gap():
    assert metrics.fit_threshold(np.array([0.0, 1, 5, 6]), np.array([0, 0, 1, 1])) == 3
    assert metrics.fit_threshold(np.array([0.0, 1]), np.array([0, 0])) == 0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_no_other_threshold_is_better(seed):
    scores, labels = drawn(seed, n=40, ties=seed % 2 == 0)
    best = metrics.balanced_accuracy(scores, labels, metrics.fit_threshold(scores, labels))
    for t in np.r_[scores, scores + 1e-6]:
        assert np.isnan(best) or metrics.balanced_accuracy(scores, labels, t) <= best + 1e-9


def test_temperature_recovers_the_scale_of_calibrated_logits():
    rng = np.random.default_rng(0)
    z = rng.standard_normal(20_000) * 2
    labels = (rng.random(len(z)) < 1 / (1 + np.exp(-z))).astype(int)
    assert metrics.fit_temperature(3 * z + 1, labels, 1.0) == pytest.approx(3, rel=0.05)
    assert metrics.probability(np.array([1.0]), 1.0, 3.0)[0] == 0.5


def test_a_few_separable_clips_do_not_read_as_certainty():
    logits, labels = np.array([-3.0, -2, 2, 3]), np.array([0, 0, 1, 1])
    temperature = metrics.fit_temperature(logits, labels, 0.0)
    assert 0.6 < metrics.probability(np.array([3.0]), 0.0, temperature)[0] < 0.9


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=20))
def test_a_weight_is_so_many_equal_clips(rows):
    scores, labels, weights = (np.array(x) for x in zip(*rows, strict=True))
    scores = scores.astype(float)
    weighed = metrics.figures(scores, labels, 3.0, weights)
    repeated = metrics.figures(np.repeat(scores, weights), np.repeat(labels, weights), 3.0)
    for name in ("auc", "ap", "prevalence", "eer", "balanced_accuracy", "real_recall"):
        assert getattr(weighed, name) == pytest.approx(getattr(repeated, name), nan_ok=True), name
    assert weighed.num_real == int(((labels == 0) & (weights > 0)).sum())


def test_weights_that_cannot_be_meant_are_errors():
    for weights in (np.array([1.0, -1.0]), np.array([1.0, np.nan]), np.ones(3)):
        with pytest.raises(ValueError, match="weights of 0 or more"):
            metrics.auc(np.array([0.0, 1.0]), np.array([0, 1]), weights)


def test_interval_covers_and_widens_with_dependence():
    covered = []
    for seed in range(40):
        scores, labels = drawn(seed, n=150)
        low, high = metrics.auc_interval(scores, labels, np.arange(150), draws=200)
        assert low < metrics.auc(scores, labels) < high
        covered.append(low < 0.6897 < high)  # normal scores 0.7 apart: Phi(0.7 / sqrt 2)
    assert sum(covered) >= 33  # 38 expected
    scores, labels = drawn(0, n=60)
    people = np.repeat(np.arange(60), 5)
    many = [np.repeat(x, 5) for x in (scores, labels)]  # five equal clips a person say no more than one
    alone, together = metrics.auc_interval(*many, np.arange(300)), metrics.auc_interval(*many, people)
    assert together[1] - together[0] > 1.5 * (alone[1] - alone[0])


def test_interval_of_one_class_or_of_few_groups():
    assert all(np.isnan(metrics.auc_interval(np.arange(4.0), np.zeros(4, int), np.arange(4))))
    scores, labels = drawn(1, n=100)
    assert all(np.isnan(metrics.auc_interval(scores, labels, np.zeros(100))))  # says nothing about another group
    few = metrics.auc_interval(scores, labels, np.arange(100) % 3, seed=3)
    assert few == metrics.auc_interval(scores, labels, np.arange(100), seed=3)
    weights = np.where(np.arange(100) < 50, 1, 0)
    half = metrics.auc_interval(scores, labels, np.arange(100), weights)
    assert half == metrics.auc_interval(scores[:50], labels[:50], np.arange(50))
