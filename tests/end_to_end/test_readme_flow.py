"""The steps of README and of the tutorial, from a folder of videos to an evaluated detector, run as they are written there,
without any leak."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_runs import ROOT

import store

HEADING = "## From videos to an evaluated detector"
SMALL = {"student/train.py": ["--max-steps", "3"]}  # added, so that the run is short


def steps() -> list[str]:
    """The command lines below README's heading."""
    return commands((ROOT / "README.md").read_text().partition(f"{HEADING}\n")[2].partition("\n## ")[0])


def commands(text: str) -> list[str]:
    """The indented lines of a page that are commands."""
    return [line.strip() for line in re.findall(r"^    (python .*|accelerate .*)$", text, re.MULTILINE)]


def run(line: str, kind: str, root: Path) -> str:
    """Run a command with /data and the kind of corpus replaced; returns what it said."""
    words = shlex.split(line.replace("/data/", f"{root}/").replace("folder:", f"{kind}:"), comments=True)
    if words[0] == "accelerate":
        words = ["python", *words[2:]]  # one process needs no launcher
    script = next(word for word in words if not word.startswith("python"))
    words = [sys.executable, *words[1:], *SMALL.get(script, [])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    expected = 3 if "predict" in line else 0  # a fit of four clips licenses no verdict
    assert done.returncode == expected, f"{line}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "grid"])
def test_the_steps_of_the_readme_leak_nothing(kind, clips, tmp_path):
    for name, path in zip(("ann", "bob", "cid", "dan"), sorted((clips / "clips").iterdir()), strict=True):
        where = {"folder": f"videos/real/{name}", "grid": f"videos/{name}/clips"}[kind]
        (tmp_path / where).mkdir(parents=True)
        shutil.copy(path, tmp_path / where / path.name)
        shutil.copy(path, tmp_path / "new.mp4")
    lines = steps()
    assert len(lines) == 7
    said = {line.partition(" -")[0] if "precompute" in line else line: run(line, kind, tmp_path) for line in lines}

    made = store.open(tmp_path / "labels.zarr")
    assert set(made.clips["split"].tolist()) == {"train", "val", "test"}
    seen = store.seen.by_split(made)
    train, val, test = (seen[name] for name in ("train", "val", "test"))
    assert train.clips == train.of > 0
    assert (val.clips, test.clips) == (0, 0)
    assert f"the fit has seen {train.of} of {train.of} train clips" in said["python precompute.py"]
    assert made.clip(0).id.startswith(f"{kind}:videos/")

    report = json.loads((tmp_path / "report.json").read_text())
    assert report["seen"] == {who: {"seen": 0, "of": test.of} for who in ("fit", "detector", "threshold")}
    assert json.loads((tmp_path / "labels.zarr" / "audit.json").read_text())["fit_seen"]["test"] == test.to_json()
    assert (tmp_path / "answer.html").stat().st_size > 1000
    again = run(next(line for line in lines if "precompute" in line), kind, tmp_path)
    assert "nothing to do" in again


def test_the_tutorial_has_the_steps_of_the_readme():
    lines = commands((ROOT / "docs" / "tutorial.md").read_text())
    plain = [line.partition("  #")[0].rstrip() for line in steps()]
    assert [line for line in plain if line not in lines] == []


@pytest.mark.slow
def test_the_steps_of_the_tutorial_run(clips, tmp_path):
    for name, path in zip(("ann", "bob", "cid", "dan"), sorted((clips / "clips").iterdir()), strict=True):
        (tmp_path / "videos" / "real" / name).mkdir(parents=True)
        shutil.copy(path, tmp_path / "videos" / "real" / name / path.name)
        shutil.copy(path, tmp_path / "new.mp4")
    for line in commands((ROOT / "docs" / "tutorial.md").read_text()):
        run(line, "folder", tmp_path)
    assert (tmp_path / "answer.html").stat().st_size > 1000
