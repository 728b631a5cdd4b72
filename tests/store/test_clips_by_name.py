"""A reader as a sequence of its clips: by number, by id, by slices, one after the other; and what is not there."""

import pickle

import numpy as np
import pytest
from small_store import make_store

import store
from store import layout
from store.layout import StoreError
from store.reading.clips import Clip, NoClip, UnknownClip


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return store.open(
        make_store(tmp_path_factory.mktemp("store") / "s.zarr", {"train": 3, "val": 2}, frames=30, broken=1)
    )


@pytest.mark.parametrize("number", [0, 3, -1, -5, np.int64(2), np.uint8(4), np.int32(-2), True])
def test_a_clip_by_its_number(reader, number):
    row = range(5)[number]
    assert (reader[number].row, reader[number].id) == (row, reader.clips["id"][row])


def test_a_clip_by_its_id(reader):
    assert [reader[name].id for name in reader.clips["id"]] == [clip.id for clip in reader]
    clip = reader[np.str_("val001r")]
    assert (clip.row, clip.done) == (4, False)
    first = reader["train001r"]
    got = reader.frames(first.row, 0, first.length, ["mouth"])["mouth"]
    assert np.array_equal(got, reader.rows(first.offset, first.offset + first.length, ["mouth"])["mouth"])


def test_several_clips_by_a_slice(reader):
    names = reader.clips["id"].tolist()
    for part in (
        slice(1, 3),
        slice(None, None, -2),
        slice(-2, None),
        slice(3, 99),
        slice(4, 1),
        slice(np.int64(1), None),
    ):
        assert [clip.id for clip in reader[part]] == names[part]


def test_clips_one_after_the_other(reader):
    clips = list(reader)
    assert len(clips) == len(reader) == 5
    assert all(isinstance(clip, Clip) for clip in clips)
    assert [clip.row for clip in reversed(reader)] == [4, 3, 2, 1, 0]
    assert clips[2] in reader
    assert "train000r" in reader
    assert "train" not in reader
    assert 0 not in reader


@pytest.mark.parametrize("number", [5, -6, np.int64(99)])
def test_a_number_that_is_not_there(reader, number):
    with pytest.raises(IndexError, match=rf"s\.zarr has no clip {number}: it has 5, counted from 0"):
        reader[number]
    with pytest.raises(NoClip):  # rows are counted from 0 alone
        reader.clip(-1)


def test_an_id_that_is_not_there_is_said_in_a_sentence(reader):
    with pytest.raises(KeyError) as found:
        reader["../x"]
    assert str(found.value) == f"{reader.path} has no clip called '../x'; reader.clips['id'] has all its ids"
    assert isinstance(found.value, StoreError)
    assert str(pickle.loads(pickle.dumps(found.value))) == str(found.value)
    assert isinstance(found.value, UnknownClip)


@pytest.mark.parametrize("key", [1.0, None, b"train000r", (0, 1), np.array([0, 1])])
def test_a_key_of_another_type(reader, key):
    with pytest.raises(TypeError, match="a clip is asked for by its number or its id, not by"):
        reader[key]


def test_an_empty_store_has_no_clips(tmp_path):
    store.create(tmp_path / "s.zarr", {"asr": 2, "vsr": 2}, {})
    empty = store.open(tmp_path / "s.zarr")
    assert list(empty) == empty[:] == []
    with pytest.raises(IndexError, match="has no clip 0: it has 0"):
        empty[0]
    with pytest.raises(KeyError, match="no clip called ''"):
        empty[""]


def test_an_id_that_is_there_twice_is_refused(tmp_path, monkeypatch):
    """No writer of ours makes such a store."""
    reader = store.open(make_store(tmp_path / "s.zarr", {"train": 3, "val": 2}, frames=30, broken=1))
    reader.clips["id"][1] = reader.clips["id"][0]
    with pytest.raises(StoreError, match="several clips called 'train000r'; take one by its number"):
        reader["train000r"]
    assert reader["train002r"].row == 2


def test_a_clip_has_the_columns_of_the_table_and_its_row():
    assert list(Clip.__dataclass_fields__) == [*layout.CLIP_ARRAYS, "row"]
