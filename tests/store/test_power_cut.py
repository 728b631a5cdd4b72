"""A power cut loses nothing that a writer has reported as written. Each file is flushed before it takes its place, and
its name after, before the next change."""

import os
from pathlib import Path

import pytest
from small_store import make_store

import store
from pipelines.tables import ledger
from store import staging


class Disk:
    """Watches which files are flushed, put in place, and lost if the power went now."""

    def __init__(self, monkeypatch):
        self.flushed, self.placed, self.unflushed_names = set(), [], set()
        real = {name: getattr(os, name) for name in ("fsync", "replace", "rename", "unlink")}

        def fsync(descriptor):
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            real["fsync"](descriptor)
            self.flushed.add(path)
            self.unflushed_names.discard(path)

        def moved(source, target):
            assert os.path.realpath(source) in self.flushed, f"{target} would be empty after a power cut"
            assert not self.unflushed_names, (
                f"{self.unflushed_names} has names that are not flushed, and {target} comes next"
            )
            real["replace"](source, target)
            self.placed.append(os.path.realpath(target))
            self.unflushed_names.add(os.path.dirname(os.path.realpath(target)))

        def unlink(path, *args, **kwargs):
            assert not self.unflushed_names, f"{path} goes before what takes its place is safe"
            real["unlink"](path, *args, **kwargs)

        for name, function in {"fsync": fsync, "replace": moved, "rename": moved, "unlink": unlink}.items():
            monkeypatch.setattr(os, name, function)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def test_all_that_a_store_holds_was_flushed_before_it_took_its_place(tmp_path, disk):
    path = make_store(tmp_path / "s.zarr", {"train": 6}, frames=20, shard_rows=100, fresh=True)
    writer = store.Writer.open(path)
    writer.write_clips(1, {"quality": [0.5]})
    writer.write_fit(store.open(path).fit.to_arrays())
    staging.stage(path, "000000000000-000000000-1", [{}], [{"id": "a"}])
    staging.discard(path, staging.staged(path))
    ledger.write(path, [])
    writer.consolidate()
    there = {os.path.realpath(file) for file in Path(path).rglob("*") if file.is_file()}
    assert there <= set(disk.placed)
    assert not disk.unflushed_names
