"""Whole faces from the command to the student: a store that has them keeps them, talknet is trained and asked with them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from awkward import frames_of, sound_of, write_clip
from click.testing import CliRunner

import store
from benchmarks.survival.same import differences
from store import layout
from student.predict.__main__ import main as predict
from student.train import main as train
from teachers.face.tracker import FaceTracker

ROOT = Path(__file__).parents[2]
LOST = range(30, 50)  # frames of one clip without a face
TALKNET = ["--model", "talknet", "--window", "12", "--batch-size", "2", "--threads", "1", "--trim", "none", "--cpu"]


def command(*options: object) -> list[str]:
    return [sys.executable, str(ROOT / "precompute.py"), *map(str, options)]


def precompute(*options: object, code: int = 0) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(command(*options), capture_output=True, text=True, cwd=ROOT, env=environment, timeout=500)
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


pytestmark = pytest.mark.slow  # two runs of precompute and three of training


@pytest.fixture(scope="module")
def corpus(clips, tmp_path_factory):
    """Four real clips, and one of them again whose face is away for a while."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "real").mkdir()
    for path in sorted((clips / "clips").glob("*.mp4")):
        shutil.copy(path, folder / "real")
    source = clips / "clips" / "bbaf2n.mp4"
    pictures = [np.full_like(p, 128) if k in LOST else p for k, p in enumerate(frames_of(source))]
    write_clip(folder / "real" / "lost.mkv", pictures, sound_of(source))
    return folder


@pytest.fixture(scope="module")
def made(corpus, tmp_path_factory):
    """The store with whole faces."""
    path = tmp_path_factory.mktemp("store") / "s.zarr"
    said = precompute("--corpus", f"folder:{corpus}", "--store", path, "--arrays", "face").stdout
    assert f"5 of 5 clips done in {path} with frames/face" in said
    return path


@pytest.fixture(scope="module")
def run(made, tmp_path_factory):
    """The folder of a talknet that has made two steps."""
    output = tmp_path_factory.mktemp("run")
    result = CliRunner().invoke(train, ["--store", str(made), "--output", str(output), *TALKNET, "--max-steps", "2"])
    assert result.exit_code == 0, result.output
    return output


def test_a_store_says_that_it_has_faces_and_gives_them(made, corpus):
    reader = store.open(made)
    assert reader.array("face").shape[1:] == (112, 112)
    assert reader.attrs["teachers"]["face"]["options"]["face"] == {"margin": 0.4, "median": 13}
    tracker = FaceTracker()
    for row in range(len(reader)):
        got = reader.frames(row, 0, 75, ["face", "mouth", "flags"])
        expected = tracker.track(frames_of(Path(reader.clip(row).path)), whole_faces=True)
        np.testing.assert_array_equal(got["face"], expected.face)
        np.testing.assert_array_equal(got["mouth"], expected.mouth)
        faced = (got["flags"] & layout.FACE) > 0
        assert got["face"][faced].any(axis=(1, 2)).all()
        assert not got["face"][~faced].any()
    lost = next(row for row in range(len(reader)) if reader.clip(row).path.endswith("lost.mkv"))
    assert not reader.frames(lost, LOST.start, LOST.stop, ["face"])["face"].any()


def test_other_tools_see_faces_beside_mouths(made):
    tree = store.open(made).to_xarray()
    assert tree["frames/face"].dims == ("frame", "face_y", "face_x")
    inspected = subprocess.run(
        [sys.executable, "-m", "store.inspect", str(made), "--verify"], cwd=ROOT, capture_output=True, text=True
    )
    assert inspected.returncode == 0, inspected.stdout
    assert "frames/face" in inspected.stdout
    shard = made / "frames" / "face" / "c" / "0" / "0" / "0"
    assert shard.stat().st_size < 75 * 5 * 12_544


@pytest.mark.slow
def test_later_runs_keep_what_the_store_has(made, corpus, clips, tmp_path):
    path = tmp_path / "s.zarr"
    shutil.copytree(made, path)
    done = precompute("--corpus", f"grid:{clips}", "--store", path, "--limit", 1)
    assert "with frames/face" in done.stdout
    reader = store.open(path)
    assert len(reader) == 6
    assert reader.frames(5, 0, 75, ["face"])["face"].any(axis=(1, 2)).all()
    (path / "frames" / "face" / "c" / "0" / "0" / "0").unlink()
    assert "damaged" in precompute("--store", path, "--arrays", "face").stderr
    np.testing.assert_array_equal(
        store.open(path).frames(0, 0, 75, ["face"])["face"], store.open(made).frames(0, 0, 75, ["face"])["face"]
    )


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_values(made, corpus, tmp_path):
    path = tmp_path / "killed.zarr"
    asked = command("--corpus", f"folder:{corpus}", "--store", path, "--arrays", "face")
    process = subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    while process.poll() is None and not list((path / "_staging").glob("*.npz")):
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (store.open(path).clips["done"] == 1).all()
    precompute("--corpus", f"folder:{corpus}", "--store", path)  # the store knows what its first run asked for
    assert differences(made, path) == []
    assert files(made / "frames") == files(path / "frames")


def test_a_store_without_faces_cannot_get_them(tmp_path, clips):
    path = tmp_path / "s.zarr"
    store.create(path, {"asr": 384, "vsr": 80}, {"teachers": {}})
    before = files(path)
    done = precompute("--corpus", f"grid:{clips}", "--store", path, "--arrays", "face", code=2)
    assert "make a new store with --arrays face" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert files(path) == before


@pytest.mark.parametrize("names", ["eyes", "face,eyes", "face,", "Face"])
def test_unknown_arrays_change_nothing(tmp_path, clips, names):
    done = precompute("--corpus", f"grid:{clips}", "--store", tmp_path / "s.zarr", "--arrays", names, code=2)
    assert "--arrays knows face, not" in done.stderr
    assert not (tmp_path / "s.zarr").exists()


def test_a_dry_run_counts_faces(tmp_path, clips):
    options = ("--corpus", f"grid:{clips}", "--store", tmp_path / "s.zarr", "--dry-run")
    plain, more = precompute(*options).stdout, precompute(*options, "--arrays", "face").stdout
    assert "of store with frames/face, made in" in more
    assert "frames/face" not in plain
    assert float(more.split("about ")[1].split()[0]) > 1.5 * float(plain.split("about ")[1].split()[0])


def test_talknet_looks_at_faces_and_says_so(made, run, tmp_path):
    assert json.loads((run / "config.json").read_text())["config"]["data"]["picture"] == "face"
    assert "of whole faces (`frames/face`)" in (run / "MODEL_CARD.md").read_text()
    options = [
        "--store",
        str(made),
        "--output",
        str(tmp_path / "lite"),
        *TALKNET,
        "--model",
        "lite",
        "--max-steps",
        "1",
    ]
    assert CliRunner().invoke(train, options).exit_code == 0
    assert json.loads((tmp_path / "lite" / "config.json").read_text())["config"]["data"]["picture"] == "mouth"


def test_two_runs_give_the_same_bytes(made, run, tmp_path):
    result = CliRunner().invoke(train, ["--store", str(made), "--output", str(tmp_path), *TALKNET, "--max-steps", "2"])
    assert result.exit_code == 0, result.output
    assert (run / "metrics.jsonl").read_bytes() == (tmp_path / "metrics.jsonl").read_bytes()
    weights = [(folder / "checkpoint-2" / "model.safetensors").read_bytes() for folder in (run, tmp_path)]
    assert weights[0] == weights[1]


def test_predict_answers_with_the_faces_that_the_store_would_hold(made, run, clips):
    """The logit of a clip from its file is that of its rows in the store."""
    import torch

    from store.dataset import spans
    from student import checkpoint
    from student.scoring import score

    file = clips / "clips" / "lgas5a.mp4"
    result = CliRunner().invoke(predict, [str(file), "--checkpoint", str(run), "--no-words", "--json", "-", "--cpu"])
    assert result.exit_code in (0, 3), result.output
    said = json.loads(result.stdout)
    assert said["basis"]["student"]["picture"] == "face"
    (video,) = said["videos"]
    assert video["rests_on"] == "student"

    reader = store.open(made)
    row = next(r for r in range(len(reader)) if reader.clip(r).path.endswith(file.name))
    first, last = spans.span(reader.frames(row, 0, 75, ["flags"])["flags"], "none")
    assert video["offset"]["sound_late_ms"] == 0  # so it is judged as it is
    trial = score.Trial("x", row, row, first, first, last - first, -1, "")
    model, header = checkpoint.load_model(run)
    logit = score.logits(model, reader, [trial], header.window, torch.device("cpu"), picture="face")
    assert video["student"]["logit"] == pytest.approx(float(logit[0]), abs=1e-4)
