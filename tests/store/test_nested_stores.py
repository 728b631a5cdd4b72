"""No store is made in another, none that lies in another is removed with it, and one that is moved is not written to."""

import os
import shutil

import pytest
from command_runs import ROOT, contents, ran
from small_store import make_store

import store
from store.place import place


def test_no_store_is_made_in_another(tmp_path):
    root = make_store(tmp_path / "o.zarr", {"train": 2})
    (tmp_path / "way").symlink_to(root / "frames")
    for inside in (root / "fit" / "mine.zarr", tmp_path / "way" / "mine.zarr", root / "fit"):
        with pytest.raises(store.StoreError, match=r"lies in the store|is not empty"):
            store.create(inside, {"asr": 2, "vsr": 2}, {})
        assert not (inside / "zarr.json").exists() or inside == root / "fit"


def test_precompute_makes_no_store_in_another(tmp_path):
    import precompute

    root = make_store(tmp_path / "o.zarr", {"train": 2})
    (tmp_path / "corp" / "real").mkdir(parents=True)
    (tmp_path / "corp" / "real" / "a.mp4").write_bytes(b"x")
    before = contents(root)
    words = ("--corpus", f"folder:{tmp_path / 'corp'}", "--store", root / "fit" / "mine.zarr")
    for more in ((), ("--dry-run",)):
        done = ran(precompute.main, *words, *more)
        assert (done.exit_code, "lies in the store" in done.stderr) == (2, True), done.output
        assert contents(root) == before


def test_a_store_within_a_group_outlives_the_group(tmp_path):
    from store.arrays.nodes import delete_node

    inner = make_store(tmp_path / "s", {"train": 2})
    root = make_store(tmp_path / "o.zarr", {"train": 2})
    (root / "words" / "deep").mkdir(parents=True)
    shutil.move(inner, root / "words" / "deep" / "mine.zarr")
    (root / "words" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    before = contents(root / "words" / "deep")
    delete_node(place(root / "words"))
    assert contents(root / "words" / "deep") == before
    assert not (root / "words" / "zarr.json").exists()


def test_a_store_that_is_moved_during_a_run_is_said_to_be_gone(tmp_path, monkeypatch):
    """Its driver reads and writes nothing at the old place any more, whatever the first thing is that fails."""
    import precompute
    from pipelines.job.planning import Planner

    def moved(self, rows):
        os.rename(tmp_path / "s.zarr", tmp_path / "moved.zarr")
        return [75 for _ in rows]

    monkeypatch.setattr(Planner, "_probe", moved)
    clips = tmp_path / "corp" / "real"
    clips.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "data" / "grid" / "clips" / "bbaf2n.mp4", clips)
    done = ran(precompute.main, "--corpus", f"folder:{tmp_path / 'corp'}", "--store", tmp_path / "s.zarr")
    assert done.exit_code == 1
    last = done.stderr.splitlines()[-1]
    assert f"{tmp_path / 's.zarr'} is gone: the store was moved or removed" in last
    assert (tmp_path / "moved.zarr" / "zarr.json").exists()
    assert not (tmp_path / "s.zarr").exists()
