"""The number of faces and a second face: what new stores have, and stores of earlier releases lack."""

import shutil

import numpy as np
import pytest
import small_store
import zarr

import store
from store import StoreError, layout, mend
from store.verify import verify


@pytest.fixture
def new(tmp_path):
    return small_store.make_store(tmp_path / "s.zarr", {"train": 2}, frames=30)


@pytest.fixture
def old(new):
    """The same as an earlier release made it."""
    for name in layout.SECOND_ARRAYS:
        shutil.rmtree(new / "frames" / name)
    shutil.rmtree(new / "clips" / "num_faces")
    store.Writer.open(new).consolidate()
    return new


def test_a_new_store_has_both_and_clips_with_one_face_cost_next_to_nothing(new):
    reader = store.open(new)
    assert set(layout.SECOND_ARRAYS) <= set(reader.names)
    assert reader.clips["num_faces"].tolist() == [-1] * len(reader)
    assert reader.clip(0).num_faces == -1
    files = reader.place.files()
    sizes = {
        name: sum(size for key, size in files.items() if key.startswith(f"frames/{name}/c/")) for name in reader.names
    }
    assert sizes["mouth2"] < 0.02 * sizes["mouth"] + 20_000
    empty = reader.frames(0, 0, 30, list(layout.SECOND_ARRAYS))
    assert not empty["mouth2"].any()
    assert not empty["flags2"].any()
    assert np.isnan(empty["lips2"]).all()


def test_a_second_face_is_read_back(new):
    writer = store.Writer.open(new)
    writer.write_clips(0, {"num_faces": [2]})
    names = list(layout.SECOND_ARRAYS)
    block = writer.blank_shard(names)
    block["mouth2"][:30], block["flags2"][:30], block["lips2"][:30] = 7, 1, 0.5
    writer.write_shard(0, block)
    writer.consolidate()
    reader = store.open(new)
    assert reader.clip(0).num_faces == 2
    assert reader.to_pandas()["num_faces"].tolist()[:2] == [2, -1]
    got = reader.frames(0, 0, 30, names)
    assert (got["mouth2"] == 7).all()
    assert (got["lips2"] == 0.5).all()
    assert (reader.frames(1, 0, 30, ["mouth2"])["mouth2"] == 0).all()
    assert set(reader.to_xarray()["frames"].data_vars) >= set(names)
    assert verify(reader) == []
    assert zarr.open(str(new))["clips/num_faces"][0] == 2


def test_an_old_store_opens_and_does_not_know(old):
    reader = store.open(old)
    assert reader.clips["num_faces"].tolist() == [-1] * len(reader)
    assert list(reader.to_pandas().columns) == list(layout.CLIP_ARRAYS)
    assert reader.clip(0).num_faces == -1
    assert not set(layout.SECOND_ARRAYS) & set(reader.names)
    with pytest.raises(StoreError, match=r"has no frames/lips2.*an earlier release made it: a new store has it"):
        reader.frames(0, 0, 1, ["lips2"])
    assert verify(reader) == []


def test_an_old_store_is_added_to_and_keeps_what_it_was_made_with(old):
    writer = store.Writer.open(old)
    before = writer.num_clips
    first = writer.append_clips({"id": ["later"], "num_faces": [2]})
    assert first == before
    writer.write_clips(first, {"num_faces": [3], "label": [0]})
    writer.consolidate()
    reader = store.open(old)
    assert reader.clips["num_faces"].tolist() == [-1] * (before + 1)
    assert reader.clips["label"][first] == 0
    assert not (old / "clips" / "num_faces").exists()
    assert not mend.damage(writer)
    assert mend.mend_metadata(writer) == []


def test_a_lost_column_or_array_of_a_new_store_is_damage(new):
    (new / "clips" / "num_faces" / "zarr.json").unlink()
    (new / "frames" / "lips2" / "zarr.json").unlink()
    with pytest.raises(StoreError):
        store.open(new)
    writer = store.Writer.open(new)
    assert sorted(mend.mend_metadata(writer)) == ["clips/num_faces", "frames/lips2"]
    writer.consolidate()
    assert verify(store.open(new)) == []
