"""The state of a run as a record: a checkpoint restores it unchanged, and undefined figures stay undefined."""

import json
import math

import pytest

from student.config import to_json
from student.run import card
from student.run.state import Best, Epoch, Seconds, State, Validation

FIGURES = Validation(
    trials=4, auc=0.75, brier=0.2, threshold=0.1, temperature=2.0, auc_swap=math.nan, auc_shift=0.5, alarms=0.0
)


def there_and_back(state):
    return State.parse(json.loads(to_json(state.to_json())))


def test_a_state_comes_back_from_json_the_same():
    best = Best(FIGURES.rank, 1, 6, "ab", FIGURES)
    state = State(7, 1, 6, [Epoch(1, 6, Seconds(1.0, 0.5, 0.25), FIGURES)], best, Seconds(2.0, 0.5, 0.25))
    again = there_and_back(state)
    assert to_json(again.to_json()) == to_json(state.to_json())
    assert math.isnan(again.best.figures.auc_swap)
    assert (again.best.rank, again.best.weights, again.history[0].seconds) == (
        (0.75, -0.2),
        "ab",
        Seconds(1.0, 0.5, 0.25),
    )
    assert there_and_back(State()) == State()


def test_figures_of_no_trials_and_of_earlier_releases_keep_their_keys():
    assert list(Validation().to_json()) == ["auc", "brier", "threshold", "temperature", "trials"]
    told = {"auc": 0.5, "auc_swap": None, "brier": 0.25, "threshold": 0.0, "temperature": 1.0, "trials": 2}
    assert list(Validation.parse(told).to_json()) == list(told)


def test_the_card_of_a_run_that_went_on_leaves_out_figures_that_do_not_exist():
    """JSON has null for them, which was taken for a number."""
    best = there_and_back(State(best=Best(FIGURES.rank, 1, 6, "ab", FIGURES))).best
    assert card.figures(best) == (
        "After epoch 1, on 4 trials: auc 0.750, auc shift 0.500, brier 0.200; threshold 0.100, temperature 2.000."
    )


@pytest.mark.parametrize(
    "change",
    [
        {"best": {"step": 1}}, {"best": {"rank": [1, 2, 3], "epoch": 1, "step": 1}}, {"best": 3},
        {"history": [3]}, {"history": [{"epoch": 1}]}, {"history": None}, {"seconds": {"train": "x"}}, {"seconds": []},
    ],
)  # fmt: skip
def test_a_state_that_means_nothing_is_refused_by_name(change):
    name = "best figures" if "best" in change else next(iter(change))
    with pytest.raises(ValueError, match=f"no {name} that can be used"):
        State.parse({**State().to_json(), **change})
