"""The loss of the branch that sees how a mouth is drawn."""

from typing import Any, cast

import pytest
import torch

from student.models import Output
from student.training.losses import RANKED, Targets, texture


def loss(logits: list[float], forged: list[list[int]], of: list[int], mask: list[list[int]] | None = None) -> float:
    """The loss of windows with those logits, whose frames are forged where `forged` has 1."""
    nothing = torch.zeros(1)
    frames = torch.tensor(forged, dtype=torch.float32)
    known = torch.ones_like(frames) if mask is None else torch.tensor(mask)
    output = Output(*(nothing,) * 6, drawn=torch.tensor([logits, logits]))
    targets = Targets(
        *cast(Any, (nothing,) * 8), drawn_mask=known.bool(), drawn_forged=frames, drawn_of=torch.tensor(of)
    )
    return float(texture(output, targets))


def test_logits_of_the_right_sign_cost_less():
    right, wrong = (loss([-x, x], [[0, 0], [1, 1]], [-1, -1]) for x in (3.0, -3.0))
    assert right == pytest.approx(0.0486, abs=1e-3)
    assert wrong > 3


def test_a_window_of_which_a_part_is_forged_lies_between():
    costs = {x: loss([x], [[0, 0, 1, 1]], [-1]) for x in (-2.0, 0.0, 2.0)}
    assert costs[0.0] < costs[-2.0] == pytest.approx(costs[2.0])


def test_a_pseudo_fake_must_rank_above_its_own_window_whatever_both_are():
    shift = [
        loss([5.0, 5.0 + by], [[0], [1]], [-1, 0]) - loss([5.0, 5.0 + by], [[0], [1]], [-1, -1]) for by in (-2.0, 2.0)
    ]
    assert shift == pytest.approx([2.1269 * RANKED, 0.1269 * RANKED], abs=1e-3)


def test_frames_without_a_face_do_not_count():
    seen = loss([1.0, -1.0], [[0, 0], [1, 1]], [-1, 0])
    assert loss([1.0, -1.0], [[0, 1], [1, 0]], [-1, 0], [[1, 0], [1, 0]]) == pytest.approx(seen)
    assert loss([9.0], [[0, 0]], [-1], [[0, 0]]) == 0
