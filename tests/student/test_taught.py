"""An evaluation says how many of its clips the fit and the detector have seen, and marks figures on them."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from small_store import make_store

import store
from student import checkpoint
from student.evaluate import Asked, evaluate, main, report
from student.models import build
from student.run.identity import store_identity
from student.scoring import tables


def detector(folder, **about):
    folder.mkdir()
    torch.manual_seed(0)
    told = {
        "threshold": 0.1,
        "temperature": 1.0,
        "fitted_on": "x",
        "window": 25,
        "config": {"seed": 0},
        "store": {},
        "versions": {},
    }
    checkpoint.save_model(folder, build("lite"), "lite", {**told, **about})
    return folder


def with_fit(path, rows):
    """The store's fit has learned from these rows; None: it does not say."""
    reader, writer = store.open(path), store.Writer.open(path)
    seen = None if rows is None else store.seen.keys(reader, rows)
    writer.write_fit(dataclasses.replace(reader.fit, seen=seen).to_arrays())
    writer.consolidate()
    return path


@pytest.fixture
def path(tmp_path):
    return make_store(tmp_path / "s.zarr", {"train": 4, "val": 2, "test": 6}, frames=(36, 50), fakes=2)


def rows_of(path, split):
    return np.flatnonzero(store.open(path).clips["split"] == split)


def packed(path, split):
    return store.seen.packed(store.seen.keys(store.open(path), rows_of(path, split)))


def test_clean_splits_have_seen_nothing_and_nothing_is_marked(path, tmp_path):
    with_fit(path, rows_of(path, "train"))
    run = detector(tmp_path / "run", clips={name: packed(path, name) for name in ("train", "val")})
    found = evaluate(str(path), run)
    none = {"seen": 0, "of": 8}
    assert found["seen"] == {"fit": none, "detector": none, "threshold": none}
    assert {line["seen"] for row in found["methods"].values() for line in row.values()} == {0}
    text = tables.markdown(report(Asked(str(path), run)))
    assert "The fit has seen none of these 8 clips" in text
    assert not re.search(r"[a-z] [*?] ", text)


def test_figures_of_seen_clips_are_marked_by_scorer_and_method(path, tmp_path):
    test = rows_of(path, "test")
    with_fit(path, test[:3])  # three real ones
    run = detector(tmp_path / "run", clips={"train": packed(path, "test"), "val": ""})
    found = evaluate(str(path), run)
    assert found["seen"] == {
        "fit": {"seen": 3, "of": 8},
        "detector": {"seen": 8, "of": 8},
        "threshold": {"seen": 0, "of": 8},
    }
    overall = found["methods"]["overall"]
    assert (overall["teacher"]["seen"], overall["student"]["seen"], overall["both"]["seen"]) == (3, 8, 8)
    shown = CliRunner().invoke(main, ["--store", str(path), "--checkpoint", str(run)]).output
    assert "teachers *" in shown
    assert "The fit has seen 3 of these 8 clips" in shown
    assert "* learned from some of these clips" in shown


def test_what_is_not_recorded_is_not_claimed(path, tmp_path):
    with_fit(path, None)
    run = detector(tmp_path / "run")
    found = evaluate(str(path), run)
    assert found["seen"] == {who: {"seen": None, "of": 8} for who in ("fit", "detector", "threshold")}
    assert found["methods"]["overall"]["teacher"]["seen"] is None
    text = tables.markdown(report(Asked(str(path), run)))
    assert "It is not recorded which of these 8 clips the fit has seen" in text
    assert "teachers ?" in text


def test_a_detector_without_a_list_is_known_in_its_own_store(path, tmp_path):
    run = detector(tmp_path / "run", store=store_identity(store.open(path)))
    assert evaluate(str(path), run, "test")["seen"]["detector"] == {"seen": 0, "of": 8}
    assert evaluate(str(path), run, "train")["seen"]["detector"] == {"seen": 6, "of": 6}
    assert evaluate(str(path), run, "val")["seen"]["threshold"] == {"seen": 4, "of": 4}
    other = detector(tmp_path / "other", store=store_identity(store.open(path)), config={"seed": 0, "splits": "x.csv"})
    assert evaluate(str(path), other, "test")["seen"]["detector"] == {"seen": None, "of": 8}
