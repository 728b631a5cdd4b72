"""Mouths or whole faces: who looks at what, how it is cut, and that a run keeps to it."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from small_store import make_store

import store
from store.dataset.spans import spans
from student import checkpoint
from student.config import DataConfig
from student.data.corpus import Corpus
from student.data.dataset import Windows
from student.data.order import Key
from student.data.picture import CROP, SIDES, choose, cut
from student.evaluate import main as evaluate
from student.header import picture
from student.train import main


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The same clips in a store without faces and in one with them."""
    folder, sizes = tmp_path_factory.mktemp("picture"), {"train": 6, "val": 2, "test": 2}
    return [make_store(folder / f"{k}.zarr", sizes, frames=(24, 30), faces=bool(k)) for k in (0, 1)]


def train(path, output, *options, code=0):
    few = [
        "--window",
        "12",
        "--batch-size",
        "2",
        "--threads",
        "1",
        "--epochs",
        "1",
        "--model",
        "talknet",
        "--trim",
        "none",
    ]
    result = CliRunner().invoke(main, ["--store", str(path), "--output", str(output), *few, *options])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def runs(stores, tmp_path_factory):
    """A talknet of one step from each."""
    folder = tmp_path_factory.mktemp("runs")
    for k, path in enumerate(stores):
        train(path, folder / str(k), "--max-steps", "1")
    return [folder / "0", folder / "1"]


def test_the_papers_student_alone_looks_at_faces_where_there_are_any():
    assert choose("talknet", ["mouth", "face"]) == "face"
    assert choose("talknet", ["mouth"]) == choose("lite", ["mouth", "face"]) == "mouth"
    assert choose("lite-causal", ["mouth", "face"]) == "mouth"


def test_sides_are_those_of_the_layout():
    arrays = store.layout.FRAME_ARRAYS | store.layout.OPTIONAL_ARRAYS
    assert {name: arrays[name][1] for name in SIDES} == {name: (side, side) for name, side in SIDES.items()}


def test_mouths_are_cut_at_one_place_a_window():
    rng = np.random.default_rng(0)
    mouths = rng.integers(0, 256, (3, 96, 96), dtype=np.uint8)
    np.testing.assert_array_equal(cut("mouth", mouths), mouths[:, 4:92, 4:92])
    places = set()
    for seed in range(40):
        found = cut("mouth", mouths, np.random.default_rng(seed))
        (place,) = [
            (y, x) for y in range(9) for x in range(9) if (found == mouths[:, y : y + CROP, x : x + CROP]).all()
        ]
        places.add(place)
    assert len(places) > 20


def test_faces_stay_whole_or_are_a_square_enlarged_again():
    """On slopes of grey across and down, a crop is a slope again, as flat as it is enlarged."""
    slope = np.linspace(20, 230, 112)
    across, down = np.broadcast_to(slope, (112, 112)), np.broadcast_to(slope[:, None], (112, 112))
    faces = np.stack([across, down, across]).round().astype(np.uint8)
    assert cut("face", faces) is faces
    whole, sizes = 0, []
    for seed in range(200):
        found = cut("face", faces, np.random.default_rng(seed))
        assert found.shape == faces.shape
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found[0], found[2])
        if np.array_equal(found, faces):
            whole += 1
            continue
        spread = [np.ptp(found[0, 50].astype(float)), np.ptp(found[1, :, 50].astype(float))]
        assert abs(spread[0] - spread[1]) < 3
        assert (np.diff(found[0].astype(int), axis=1) >= 0).all()
        sizes.append(spread[0] / 210)
    assert 70 < whole < 130
    assert 0.66 < min(sizes) < 0.75
    assert 0.95 < max(sizes) <= 1


def test_windows_hold_the_picture_that_the_config_names(stores):
    reader = store.open(stores[1])
    rows = np.arange(6)
    inside = spans(reader, rows, "none")
    corpus = Corpus.of(reader, rows, np.ones(len(reader), np.float32), inside, 14)
    for name, side in (("mouth", CROP), ("face", 112)):
        config = DataConfig(window=14, batch_size=2, picture=name, augment=False, pair_share=0)
        batch = Windows(str(stores[1]), corpus, config, 0, True, (1.0, 1.0))[Key(0, (0, 1), (0, 1))]
        assert batch["picture"].shape == (2, 14, side, side)
        start = int(batch["start"][0, 0])
        length = int(batch["mask"][0].sum())
        expected = cut(name, reader.frames(0, start, start + length, [name])[name])
        np.testing.assert_array_equal(batch["picture"][0, :length], expected)
        more = Windows(str(stores[1]), corpus, DataConfig(window=14, picture=name), 0, True, (1.0, 1.0))
        one, two = (more[Key(0, (0, 1), (0, 1))]["picture"] for _ in range(2))
        assert one.shape == (2, 14, side, side)
        assert (one == two).all()


def test_a_run_says_what_it_looks_at(runs):
    for run, name, said in zip(runs, ("mouth", "face"), ("mouth crops", "whole faces"), strict=True):
        assert json.loads((run / "config.json").read_text())["config"]["data"]["picture"] == name
        assert picture(checkpoint.about(run)) == name
        assert f"of {said} (`frames/{name}`)" in (run / "MODEL_CARD.md").read_text()
    assert picture({"config": {"data": {"trim": "none"}}}) == "mouth"  # older detectors


@pytest.mark.slow
def test_a_run_goes_on_with_what_it_began_with(stores, runs, tmp_path):
    """The store may be another copy; where faces were added or are missing, the run's own picture counts."""
    resume = ("--resume_from_checkpoint", "latest", "--max-steps", "2")
    train(stores[1], runs[0], *resume)
    assert picture(checkpoint.about(runs[0])) == "mouth"
    assert json.loads((runs[0] / "config.json").read_text())["config"]["data"]["picture"] == "mouth"
    said = train(stores[0], runs[1], *resume, code=2)
    assert "looks at frames/face, which" in said
    assert len(said.strip().splitlines()) == 1
    train(stores[1], runs[1], *resume)


@pytest.mark.slow
def test_a_runs_config_is_an_options_file_still(stores, runs, tmp_path):
    options = ["--config", str(runs[1] / "config.json"), "--output", str(tmp_path / "again")]
    result = CliRunner().invoke(main, [*options, "--store", str(stores[0]), "--max-steps", "1"])
    assert result.exit_code == 0, result.output
    assert picture(checkpoint.about(tmp_path / "again")) == "mouth"


@pytest.mark.slow
def test_a_detector_of_faces_is_evaluated_on_faces(stores, runs, tmp_path):
    for k, code in ((0, 2), (1, 0)):
        result = CliRunner().invoke(evaluate, ["--store", str(stores[k]), "--checkpoint", str(runs[1]), "--cpu"])
        assert result.exit_code == code, result.output
        if code:
            assert "precompute.py --arrays face" in result.output
