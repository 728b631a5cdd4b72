"""Forgeries told by their pictures alone: nothing of a source is in what judges it."""

import numpy as np
import pytest
from click.testing import CliRunner
from small_store import make_store

import store
from benchmarks.quality import pictures
from concord.errors import ConcordError
from student.experiment.folds import Clips


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """16 real clips of sources a and b and of none, 6 forged ones of b."""
    path = make_store(tmp_path_factory.mktemp("pictures") / "s.zarr", {"": 16}, frames=30, fakes=6, groups=8)
    writer = store.Writer.open(path)
    source = ["a"] * 6 + ["b"] * 6 + [""] * 4 + ["b"] * 6
    writer.write_clips(0, {"source": source, "method": [""] * 16 + ["drawn"] * 6})
    return path


def test_each_source_gives_about_as_many_pairs_none_of_a_forgery(path, monkeypatch):
    monkeypatch.setattr(pictures, "OF_A_SOURCE", 12)
    reader = store.open(path)
    clips = Clips.of(reader)
    found = pictures.pairs(reader, clips, 0)
    names, counts = np.unique(found.source, return_counts=True)
    assert dict(zip(names.tolist(), counts.tolist(), strict=True)) == {"a": 12, "b": 12, "synthetic": 12}
    assert found.found.shape[:2] == (36, 2)
    assert ((found.share > 0) & (found.share <= 1)).all()
    again = pictures.pairs(reader, clips, 0)
    assert np.array_equal(again.found, found.found)


def test_what_judges_a_source_has_not_learned_from_it():
    rng = np.random.default_rng(0)
    found = rng.normal(size=(40, 2, 624)).astype(np.float32)
    of = pictures.Pairs(found, np.ones(40, np.float32), np.repeat(["a", "b"], 20))
    changed = pictures.Pairs(np.where((of.source == "a")[:, None, None], 9, found), of.share, of.source)
    one, other = (pictures.learned(x, x.source != "a", 0) for x in (of, changed))
    for mine, its in zip(one.parameters(), other.parameters(), strict=True):
        assert np.array_equal(mine.detach(), its.detach())


def test_without_pairs_of_other_sources_nothing_is_answered():
    of = pictures.Pairs(np.zeros((4, 2, 624), np.float32), np.ones(4, np.float32), np.array(["a"] * 4))
    with pytest.raises(ConcordError, match="add real clips of other sources"):
        pictures.learned(of, of.source != "a", 0)


def test_a_store_whose_real_clips_are_all_of_one_source_is_refused(tmp_path):
    path = make_store(tmp_path / "s.zarr", {"": 8}, frames=30, fakes=6, groups=8, fit=False)
    store.Writer.open(path).write_clips(0, {"source": ["a"] * 8 + ["b"] * 6, "method": [""] * 8 + ["drawn"] * 6})
    result = CliRunner().invoke(pictures.main, ["--store", str(path), "--seeds", "1"])
    assert result.exit_code == 2
    assert "too few to learn from" in result.output


def test_a_network_ranks_what_differs_in_every_pair():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(300, 624)).astype(np.float32)
    of = pictures.Pairs(np.stack([real, real + 0.3], 1), np.ones(300, np.float32), np.repeat(["a", "b"], 150))
    import torch

    head = pictures.learned(of, of.source == "a", 0)
    with torch.no_grad():
        logits = head(torch.from_numpy(of.found[150:]))[..., 0]
    assert (logits[:, 1] > logits[:, 0]).float().mean() > 0.95


def test_without_soft_labels_no_margin_is_claimed(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "OF_A_SOURCE", 20)
    path = make_store(tmp_path / "s.zarr", {"": 16}, frames=30, fakes=6, groups=8, fit=False)
    store.Writer.open(path).write_clips(0, {"source": ["a", "b"] * 8 + ["b"] * 6, "method": [""] * 16 + ["drawn"] * 6})
    result = CliRunner().invoke(pictures.main, ["--store", str(path), "--seeds", "1"])
    assert result.exit_code == 0, result.output
    rows = [line.split(" | ") for line in result.stdout.splitlines() if line.startswith("| ")]
    assert rows[0][4] == "and half the margin"
    assert {row[4] for row in rows[1:]} == {"nan"}
    assert all(0 <= float(row[3][:5]) <= 1 for row in rows[1:])


def test_the_table_has_all_forgeries_each_method_and_each_source_with_both_classes(path, monkeypatch):
    monkeypatch.setattr(pictures, "OF_A_SOURCE", 20)
    result = CliRunner().invoke(pictures.main, ["--store", str(path), "--seeds", "1"])
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines] == ["| forgeries", "| all", "| within b", "| drawn"]
    assert lines[1].split(" | ")[1] == "16, 6"
