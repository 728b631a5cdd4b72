"""A folder as people have it: the awkward files of the shared cases beside good clips, through precompute and predict."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from command_runs import ROOT

from pipelines.tables import ledger

DUMPS = ("Traceback", "Fatal Python error", "double free", "corrupted size", "most recent call", "core dumped")
pytestmark = pytest.mark.slow


def run(*words: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=900
    )


@pytest.fixture(scope="module")
def folder(shared, grid, tmp_path_factory):
    cases = shared / "cases"
    if not cases.is_dir():
        pytest.skip(f"there is no folder {cases}")
    root = tmp_path_factory.mktemp("people") / "mixed"
    (root / "real").mkdir(parents=True)
    good = sorted((grid / "clips").iterdir())[::30][:20]
    for path in [*(p for p in cases.iterdir() if p.suffix != ".md"), *good]:
        shutil.copy(path, root / "real" / path.name)
    shutil.copy(cases / "README.md", root / "real" / "notes.mp4")  # one that is certainly no video
    return root, {path.name for path in good}


def test_precompute_names_what_it_could_not_use(folder, tmp_path):
    root, good = folder
    store = tmp_path / "s.zarr"
    done = run("precompute.py", "--corpus", f"folder:{root}", "--store", str(store))
    assert done.returncode == 3, done.stderr[-2000:]
    assert not [dump for dump in DUMPS if dump in done.stdout + done.stderr]
    entries = {entry.path.rsplit("/", 1)[1]: entry for entry in ledger.read(store).values()}
    failed = {name: entry.reason for name, entry in entries.items() if entry.reason}
    assert failed == {"notes.mp4": "unreadable"}
    assert good < entries.keys()
    assert "track" in entries["first_hiss.mov"].notes


def test_predict_names_what_it_could_not_use(folder, tmp_path):
    root, good = folder
    file = tmp_path / "answers.json"
    done = run("-m", "student.predict", str(root), "--teacher-only", "--no-words", "--json", str(file))
    assert done.returncode == 3, done.stderr[-2000:]
    assert not [dump for dump in DUMPS if dump in done.stdout + done.stderr]
    said = {one["path"].rsplit("/", 1)[1]: one for one in json.loads(file.read_text())["videos"]}
    unread = {
        name for name, one in said.items() if one["reason"] not in ("uncalibrated", "still picture", "several faces")
    }
    assert unread == {"notes.mp4", "crash_7_1_pcm.mov"}
    assert said["crash_7_1_pcm.mov"]["reason"] == "no speech"  # it has a third of a second
    assert good < said.keys()
