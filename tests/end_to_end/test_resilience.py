"""Runs with failures: poison clips, a full disk, workers and nodes that are killed. Real Ray, real clips."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import store
from benchmarks.survival.same import differences, faults
from pipelines.tables import ledger

ROOT = Path(__file__).parents[2]
CRASHES, HANGS = "bbaf2n.mp4", "lgas5a.mp4"
BREAKS, SURPRISES = "breaks.mp4", "surprises.mp4"  # a GPU's error that sticks; an unexpected error

TEACHER = """
import os, signal
import numpy as np

class Poison:
    name, dim, stream, broken = "poison", 2, "video", False

    def embed(self, clips):
        for clip in clips if os.environ.get("POISON") else []:
            if clip.id.endswith("CRASHES"):
                os.kill(os.getpid(), signal.SIGSEGV)
            if clip.id.endswith("HANGS"):
                signal.pause()
            if self.broken or clip.id.endswith("BREAKS"):
                self.broken = True  # as a CUDA context is after such an error
                raise RuntimeError("CUDA error: device-side assert triggered")
            if clip.id.endswith("SURPRISES"):
                raise ValueError("an unexpected row")
        return [clip.lips[:, 0] - clip.lips[:, 20] for clip in clips]

    def provenance(self):
        return {"name": self.name, "layer": None, "source": "", "sha256": "", "options": {}, "dim": 2, "licence": ""}

def load(argument, device):
    return Poison()
"""


def command(corpus: Path, path: Path, *options: object) -> list[str]:
    made = [sys.executable, str(ROOT / "precompute.py"), "--corpus", f"folder:{corpus}", "--store", str(path)]
    return [*made, "--similarity", "cca", *map(str, options)]


def environment(**more: str) -> dict[str, str]:
    return {**{k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}, **more}


def finished(made: list[str]) -> None:
    done = subprocess.run(made, env=environment(), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def fill(disk: Path) -> None:
    """Leave the disk no room."""
    with (disk / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, clips):
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "real").mkdir()
    for path in sorted((clips / "clips").glob("*.mp4")):
        shutil.copy(path, folder / "real")
    return folder


def test_clips_that_crash_hang_or_break_a_teacher_fail_alone_and_can_be_retried(corpus, tmp_path):
    corpus = shutil.copytree(corpus, tmp_path / "corpus")
    for name in (BREAKS, SURPRISES):
        shutil.copy(corpus / "real" / CRASHES, corpus / "real" / name)
    plugin, path = tmp_path / "plugin", tmp_path / "s.zarr"
    (plugin / "poison-1.dist-info").mkdir(parents=True)
    (plugin / "poison-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: poison\nVersion: 1\n")
    (plugin / "poison-1.dist-info" / "entry_points.txt").write_text("[concord.teachers]\npoison = poison:load\n")
    teacher = TEACHER
    for what, name in {"CRASHES": CRASHES, "HANGS": HANGS, "BREAKS": BREAKS, "SURPRISES": SURPRISES}.items():
        teacher = teacher.replace(what, name)
    (plugin / "poison.py").write_text(teacher)
    with_plugin = environment(PYTHONPATH=f"{plugin}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    options = ("--vsr", "poison", "--attempts", 1, "--clip-timeout", 15)
    done = subprocess.run(
        command(corpus, path, *options), env={**with_plugin, "POISON": "1"}, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 3, done.stderr
    found = {Path(e.path).name: e for e in ledger.read(path).values()}
    reasons = {CRASHES: "crash", HANGS: "timeout", BREAKS: "device", SURPRISES: "error"}
    assert {name: e.reason for name, e in found.items() if e.reason} == reasons
    assert (found[CRASHES].stage, found[CRASHES].attempts) == ("vsr", 1)
    assert "SIGSEGV" in found[CRASHES].message
    assert "15 s" in found[HANGS].message
    assert "device-side assert" in found[BREAKS].message
    assert "the program's own error" in found[SURPRISES].message
    assert int(store.open(path).clips["done"].sum()) == len(found) - 4
    kept = [json.loads(line) for line in (path / "errors.jsonl").read_text().splitlines()]
    lines = {name: one["traceback"] for one in kept for name in one["clips"]}
    for name, line in {CRASHES: "poison.py", BREAKS: "device-side assert", SURPRISES: "raise ValueError("}.items():
        assert line in lines[found[name].id]
    assert f"their tracebacks are in {path / 'errors.jsonl'}" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "Fatal Python error" not in done.stdout + done.stderr

    again = [sys.executable, str(ROOT / "precompute.py"), "--store", str(path), "--retry-failed"]
    subprocess.run(again, env=with_plugin, cwd=ROOT, check=True, capture_output=True)
    assert (store.open(path).clips["done"] == 1).all()
    assert ledger.read(path)[found[CRASHES].id].attempts == 2
    assert faults(path) == []


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_ends_the_run_and_space_lets_it_go_on(corpus, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        path = disk / "s.zarr"
        run = subprocess.Popen(
            command(corpus, path),
            env=environment(),
            cwd=ROOT,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        while run.poll() is None and not (path / "ledger.parquet").exists():
            try:
                run.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
        fill(disk)
        _, said = run.communicate(timeout=300)
        assert run.returncode == 1, said
        assert "disk is full" in said.splitlines()[-1]
        (disk / "ballast").unlink()
        finished(command(corpus, path))
        finished(command(corpus, calm := tmp_path / "calm.zarr"))
        assert [*faults(path), *differences(calm, path)] == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_run_under_fire_gives_the_same_store(grid, tmp_path):
    fire = ["--clips", "24", "--every", "5", "--drivers", "1", "--folder", str(tmp_path)]
    made = [sys.executable, "-m", "benchmarks", "chaos", "--corpus", f"grid:{grid}", *fire]
    done = subprocess.run(made, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal: every array" in done.stdout
