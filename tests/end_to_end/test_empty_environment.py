"""The wheel in an environment that had nothing: with the Python of this one whole, with the others what needs no torch."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from house import FILES, ROOT
from installed import built, environment, full_of_our_names
from small_store import make_store

from concord import extras
from pipelines.doctor import packages

OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"  # whose torch is at hand: the test of it is not a long one
OTHERS = [version for version in ("3.11", "3.12", "3.13") if version != OWN]
NEEDED = {"torch", "torchaudio", "accelerate", *extras.EXTRAS}  # what may be missing there
MISSING = re.compile(r"No module named '(\w+)")

IMPORT_ALL = """
import importlib, json, re, sys
known, missing = json.loads(sys.argv[1]), {}
for name in known:
    try:
        importlib.import_module(name)
    except ImportError as error:
        missing[name] = str(error)
print(json.dumps(missing))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return built(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def foreign(tmp_path) -> Path:
    """Where commands run: a folder with modules called like ours."""
    return full_of_our_names(tmp_path / "work")


class Environment:
    """An environment of a Python, empty but for pip; commands run in a folder that is not the checkout."""

    def __init__(self, folder: Path, work: Path, python: str) -> None:
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        self.bin, self.work = folder / "bin", work
        self.cache = folder.parent / "cache"  # its own models
        self.constraint = folder / "constraint.txt"
        self.constraint.write_text(f"torch=={metadata.version('torch').partition('+')[0]}\n")

    def pip(self, *words: object) -> str:
        return self.run("pip", *map(str, words))

    def run(self, *words: str, code: int = 0) -> str:
        """What a command said. Fails with it for another exit code."""
        surroundings = environment(XDG_CACHE_HOME=str(self.cache), OMP_NUM_THREADS="2")
        surroundings.pop("CONCORD_WEIGHTS", None)
        command = [str(self.bin / words[0]), *words[1:]]
        done = subprocess.run(command, cwd=self.work, env=surroundings, capture_output=True, text=True, timeout=1800)
        assert done.returncode == code, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout + done.stderr


def python_of(version: str) -> str:
    """The interpreter of a version on this machine; the test is skipped where there is none."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{version}"), *root.glob(f"{version}.*/bin/python")]
    works = [
        str(one)
        for one in found
        if one and not subprocess.run([one, "-c", "import ssl"], capture_output=True).returncode
    ]
    if not works:
        pytest.skip(f"no Python {version} on this machine")
    return works[0]


@pytest.mark.parametrize("version", OTHERS)
def test_another_python_takes_the_wheel_and_reads_a_store(version, wheel, foreign, tmp_path):
    """Without torch, whose download takes minutes: every module is imported but those that need it, and a store is read."""
    here = Environment(tmp_path / "environment", foreign, python_of(version))
    wanted = packages.wanted(packages.declared(ROOT), "")
    lines = [str(line) for name, line in wanted.items() if name.lower() not in ("torch", "accelerate")]
    here.pip("install", "-q", "--no-compile", *lines)
    here.pip("install", "-q", "--no-compile", "--no-deps", wheel)
    make_store(store := str(tmp_path / "s.zarr"), {"train": 4}, frames=80)
    assert "frames/mouth" in here.run("concord", "inspect", store, "--verify")
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES]
    missing = json.loads(here.run("python", "-P", "-c", IMPORT_ALL, json.dumps(names)).splitlines()[-1])
    told = {name: MISSING.search(error) for name, error in missing.items()}
    assert all(told.values()), missing
    assert {found[1] for found in told.values() if found} <= NEEDED, missing
    assert {"concord.__main__", "store", "store.inspect", "pipelines.manifest.__main__"}.isdisjoint(missing)


@pytest.mark.parametrize("version", [OWN, *(pytest.param(version, marks=pytest.mark.slow) for version in OTHERS)])
def test_the_wheel_works_in_an_empty_environment(version, wheel, foreign, tmp_path, clips):
    """First without an extra, then with those that predict and precompute need; in a folder full of our names."""
    here = Environment(tmp_path / "environment", foreign, python_of(version))
    here.pip("install", "-q", "--no-compile", "-c", here.constraint, wheel)
    here.pip("check")
    installed = {line.partition("=")[0].lower() for line in here.pip("list", "--format", "freeze").splitlines()}
    assert installed.isdisjoint({"ray", "openai-whisper", "mediapipe", "openvino", "onnxruntime", "silero-vad"})
    store, run, video = (str(tmp_path / name) for name in ("s.zarr", "run", "bbaf2n.mp4"))
    shutil.copy(clips / "clips" / "bbaf2n.mp4", video)
    make_store(store, {"train": 16, "test": 4}, frames=80, fakes=2)
    few = ["--store", store, "--max-steps", "2", "--epochs", "1", "--batch-size", "4", "--window", "30"]
    here.run("concord", "train", "--config", "strangers", "--pseudo-share", "0", "--output", run, *few)
    here.run("concord", "evaluate", "--store", store, "--checkpoint", run, "--output", str(tmp_path / "report.json"))
    here.run("concord", "inspect", store, "--verify")
    assert "warn  predict" in (said := here.run("concord", "doctor"))
    assert "pip install 'concord-av[predict]'" in said
    assert "pip install 'concord-av[predict]'" in here.run("concord", "predict", video, "--teacher-only", code=2)

    here.pip("install", "-q", "--no-compile", "-c", here.constraint, f"{wheel}[precompute]")
    here.pip("check")
    assert "cannot decide" in here.run("concord", "predict", video, "--teacher-only", code=3)
    assert "0 failed" in (said := here.run("concord", "doctor"))
    assert re.search(r"ok +face stage", said)
    corpus = tmp_path / "videos" / "real"
    shutil.copytree(clips / "clips", corpus)
    here.run("concord", "precompute", "--corpus", f"folder:{corpus.parent}", "--store", str(tmp_path / "made.zarr"))
    here.run("concord", "inspect", str(tmp_path / "made.zarr"), "--verify")
