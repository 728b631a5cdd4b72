"""What the command refuses before it starts anything, in this process: wrong requests change nothing and say what to do."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_runs import ran, refused

from precompute import main

ROOT = Path(__file__).parents[2]
GRID = f"folder:{ROOT / 'tests/data/grid'}"


def test_the_command_itself_ends_with_2_and_says_what_to_do(tmp_path):
    command = [sys.executable, str(ROOT / "precompute.py"), "--store", str(tmp_path / "s.zarr"), "--corpus", "nosuch:."]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "kinds are" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--corpus", "grid:/nowhere"), "does not exist"),
        (("--corpus", "nosuch:."), "kinds are"),
        (("--corpus", GRID, "--asr", "whisperer"), "unknown teacher"),
        (("--corpus", GRID, "--asr", "lips"), "teacher of audio"),
        (("--corpus", GRID, "--asr", "whisper:tiny.en@9"), "layer"),
        (("--corpus", GRID, "--similarity", "magic"), "magic"),
        ((), "not a store yet"),
        (("--asr-workers", "0"), "N or MIN-MAX"),
    ],
)
def test_a_wrong_request_changes_nothing_and_says_what_to_do(tmp_path, options, says):
    assert says in refused("--store", tmp_path / "s.zarr", *options)
    assert not (tmp_path / "s.zarr").exists()


def test_a_url_of_an_unknown_kind_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "azure:// is not known" in refused("--store", "azure://bucket/s.zarr", "--corpus", GRID)
    assert not (tmp_path / "azure:").exists()


def test_a_corpus_is_not_taken_for_a_store(clips, tmp_path):
    (tmp_path / "s1").mkdir()
    shutil.copytree(clips / "clips", tmp_path / "s1/clips")
    before = {p: p.read_bytes() for p in (tmp_path / "s1").rglob("*") if p.is_file()}
    said = refused("--corpus", f"grid:{tmp_path / 's1'}", "--store", tmp_path / "s1")
    assert "nothing in it was changed" in said
    assert {p: p.read_bytes() for p in (tmp_path / "s1").rglob("*") if p.is_file()} == before


def test_dry_run_writes_nothing(tmp_path, clips):
    done = ran(main, "--corpus", f"grid:{clips}", "--store", tmp_path / "s.zarr", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "4 clips to add" in done.stdout
    assert not (tmp_path / "s.zarr").exists()
