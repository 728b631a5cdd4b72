"""Scores from windows that were encoded once equal those of a forward pass for every trial."""

import numpy as np
import pytest
import torch
from small_store import make_store

import store
from store.dataset.spans import spans
from student.models import build
from student.scoring import score, shared

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A reader, and trials of clips of different lengths, some longer than the window."""
    path = make_store(tmp_path_factory.mktemp("shared") / "s.zarr", {"test": 5}, frames=(18, 70), fakes=1)
    reader = store.open(path)
    rows = np.flatnonzero(reader.clips["done"] == 1)
    return reader, score.trials(reader, rows, spans(reader, rows, "none"), 0, swaps=2, shifts=2)


@torch.no_grad()
def by_forward_passes(model, reader, items, window):
    found = []
    for item in items:
        cuts = score.windows(item.length, window)
        values = [score.forward(model, reader, [(item, a, b)], CPU, "mouth")[0] for a, b in cuts]
        found.append(np.average(values, weights=[b - a for a, b in cuts]))
    return np.array(found)


@pytest.mark.parametrize("name", ["lite", "lite-causal"])
@pytest.mark.parametrize(
    ("batch_size", "texture"),
    [pytest.param(1, 0, marks=pytest.mark.slow), (3, 8), pytest.param(16, 0, marks=pytest.mark.slow)],
)
def test_scores_equal_those_of_forward_passes(scored, name, batch_size, texture):
    reader, items = scored
    torch.manual_seed(1)
    model = build(name, texture=texture).eval()
    if texture:
        model.fusion.copy_(torch.tensor([1.5, 0.7]))
    assert shared.has_two_streams(model)
    found = score.logits(model, reader, items, 25, CPU, batch_size=batch_size)
    np.testing.assert_allclose(found, by_forward_passes(model, reader, items, 25), atol=1e-5)
    assert found.std() > 0


def test_each_picture_goes_through_the_trunk_about_once(scored):
    reader, items = scored
    model, rows = build("lite").eval(), []
    model.visual.trunk.register_forward_hook(lambda module, args, out: rows.append(len(out)))
    score.logits(model, reader, items, 25, CPU, batch_size=64)
    windows = sum(b - a for item in items for a, b in score.windows(item.length, 25))
    frames = sum({item.lips: int(reader.clips["length"][item.lips]) for item in items}.values())
    assert sum(rows) < 1.4 * frames < windows / 2  # a window's first and last frame have other neighbours


def test_other_students_are_scored_by_forward_passes(scored):
    reader, items = scored

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.own = build("lite")

        def forward(self, *args):
            return self.own(*args)

    model = Wrapped().eval()
    assert not shared.has_two_streams(model)
    found = score.logits(model, reader, items[:6], 25, CPU)
    np.testing.assert_allclose(found, score.logits(model.own, reader, items[:6], 25, CPU), atol=1e-5)


def test_projections_are_read_once_while_they_fit(scored, monkeypatch):
    reader, items = scored
    asked = []

    class Counted:
        clips, fit = reader.clips, reader.fit

        def frames(self, row, *rest):
            asked.append(row)
            return reader.frames(row, *rest)

    whole = score.teacher_scores(Counted(), items)
    assert sorted(asked) == sorted({t.lips for t in items} | {t.sound for t in items})
    monkeypatch.setattr(score, "KEPT_FRAMES", 1)
    np.testing.assert_array_equal(score.teacher_scores(Counted(), items), whole)
    assert len(asked) > 2 * len(set(asked))
