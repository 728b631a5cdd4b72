"""Readers and drivers beside a writer, or beside nothing: what is seen is consistent, and nothing is made in passing."""

import pytest
from test_store import small

import store
from store import reader as reader_module
from store.place import lease, place


def test_a_reader_that_opens_while_clips_are_added_sees_no_clip_beyond_its_arrays(tmp_path, monkeypatch):
    writer = small(tmp_path / "s.zarr", chunk_rows=5, shard_rows=20)

    def add(name, offset):
        writer.append_clips({"id": [name], "offset": [offset], "capacity": [20], "length": [20]})
        writer.grow_rows(offset + 20)
        writer.write_shard(offset // 20, {**writer.blank_shard(), "flags": writer.blank_shard()["flags"] + 16})
        writer.write_clips(offset // 20, {"done": [1]})

    writer.begin()
    add("c0", 0)

    def slow(kind):
        def read(now):
            found = kind(now)
            if not added:
                added.append(kind)
                add("c1", 20)
            return found

        return read

    added = []
    for name in ("ClipTable", "Frames"):  # whichever is read first, the writer is quick after it
        monkeypatch.setattr(reader_module, name, slow(getattr(reader_module, name)))
    reader = store.open(writer.path)
    assert added
    for clip in range(len(reader)):
        if reader.clips["done"][clip]:
            assert reader.frames(clip, 0, 20, ["flags"])["flags"].shape == (20,)


def test_the_lock_of_a_store_that_is_gone_makes_no_folder(tmp_path):
    with (
        pytest.raises(store.StoreError, match="does not exist any more; put the store back"),
        lease.held(place(tmp_path / "gone" / "s.zarr").confined()),
    ):
        pass
    assert not any(tmp_path.iterdir())
