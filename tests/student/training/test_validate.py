"""How validation weighs the branches of a detector."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from student.scoring.metrics import equal_weights
from student.training.plan import FEW, Plan
from student.training.validate import _weigh


def weighed(parts, labels, corpora):
    detector = SimpleNamespace(fusion=torch.ones(2))
    _weigh(detector, parts, labels, np.array(corpora))
    return detector.fusion.double().numpy()


def test_real_clips_of_another_corpus_do_not_weigh_branches():
    """Agreement differs between the corpora and not within one; texture tells the forged clips."""
    rng = np.random.default_rng(0)
    parts, labels = rng.normal(size=(300, 2)), np.repeat([0, 1, 0], 100)
    parts[labels == 1, 1] += 2
    parts[200:, 0] -= 4
    inside = weighed(parts[:200], labels[:200], ["wild"] * 200)
    np.testing.assert_allclose(weighed(parts, labels, ["wild"] * 200 + ["news"] * 100), inside)
    assert inside[0] < 0.3 * inside[1]
    both = weighed(parts, labels, ["wild"] * 300)  # as it would be, were they of one corpus
    assert both[0] > 2 * inside[0]


@pytest.mark.parametrize("corpora", [[""] * 40, ["a"] * 20 + ["b"] * 20])
def test_without_a_corpus_of_both_classes_branches_vary_alike(corpora):
    rng = np.random.default_rng(1)
    parts, labels = rng.normal(size=(40, 2)) * (3, 0.5), np.repeat([0, 1], 20)
    np.testing.assert_allclose(weighed(parts, labels, corpora), equal_weights(parts, labels), rtol=1e-6)


@pytest.mark.parametrize(("count", "keep"), [(0, "best"), (1, "best"), (1, "last"), (FEW, "best")])
def test_few_validation_clips_are_said_to_give_figures_of_chance(count, keep, caplog):
    plan = SimpleNamespace(split=SimpleNamespace(rows={"val": np.arange(count)}), config=SimpleNamespace(keep=keep))
    Plan.say_validation(plan)
    assert ("validation has 1 clip:" in caplog.text) == (count == 1)
    assert ("the epoch that is kept" in caplog.text) == (count == 1 and keep == "best")
