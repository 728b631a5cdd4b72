"""Which clips a fit has learned from: by id or by sound, in this store and in others, and when nobody noted it."""

import dataclasses
import shutil

import numpy as np
import pytest
from small_store import make_store

import store
from store import seen
from store.seen import Seen
from store.similarity import fitfile


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return store.open(make_store(tmp_path_factory.mktemp("seen") / "s.zarr", {"train": 4, "test": 3}, frames=30))


def test_a_clip_is_known_by_its_id_and_under_another_name_by_its_sound(reader, tmp_path):
    taught = seen.keys(reader, [0, 2])
    assert seen.known(taught, reader, np.arange(7)).tolist() == [True, False, True] + [False] * 4
    other = shutil.copytree(reader.path, tmp_path / "o.zarr")
    names = [f"elsewhere/{k}" for k in range(7)]
    writer = store.Writer.open(other)
    writer.write_clips(0, {"id": names})
    writer.consolidate()
    assert seen.known(taught, store.open(other), np.arange(7)).tolist() == [True, False, True] + [False] * 4
    strange = store.open(make_store(tmp_path / "t.zarr", {"train": 3}, frames=30, seed=9))
    assert not seen.known(seen.keys(reader, [3, 4, 5]), strange, np.arange(3)).any()


def test_silence_is_no_sound_in_common(reader, tmp_path):
    path = shutil.copytree(reader.path, tmp_path / "s.zarr")
    writer = store.Writer.open(path)
    block = writer.blank_shard(["audio"])
    for shard in range(writer.num_rows // writer.shard_rows):
        writer.write_shard(shard, block)
    writer.consolidate()
    silent = store.open(path)
    assert seen.keys(silent, range(7))[:, 1].tolist() == [0] * 7
    assert seen.known(seen.keys(silent, [0]), silent, np.arange(7)).sum() == 1


def test_keys_travel_with_a_fit_and_a_fit_without_them_is_unknown(reader, tmp_path):
    fit = dataclasses.replace(reader.fit, seen=seen.keys(reader, range(4)))
    fitfile.save(tmp_path / "f.npz", fit, {"asr": {}, "vsr": {}}, {})
    back = fitfile.load(tmp_path / "f.npz")[0]
    assert np.array_equal(back.seen, fit.seen)
    assert back.seen.dtype == np.uint64
    assert reader.fit.seen is None  # as an earlier release made it
    assert seen.by_fit(reader, np.arange(7)) is None
    assert seen.by_split(reader) == {"train": Seen(None, 4), "test": Seen(None, 3)}
    for odd in (np.zeros((3, 2)), np.zeros((3, 3), np.uint64), np.zeros(3, np.uint64)):
        with pytest.raises(ValueError, match="two keys"):
            type(fit).from_arrays({**fit.to_arrays(), "seen": odd})


def test_what_is_said():
    assert Seen(0, 60).text() == "the fit has seen none of these 60 clips"
    assert Seen(3, 60).text() == "the fit has seen 3 of these 60 clips"
    assert Seen(None, 1).text() == "it is not recorded which of these 1 clip the fit has seen"
    assert (
        seen.sentence({"train": Seen(4, 4), "test": Seen(0, 3)})
        == "the fit has seen 4 of 4 train clips, 0 of 3 test clips"
    )


def test_keys_fit_into_a_header_and_damaged_ones_are_unknown(reader):
    keys = seen.keys(reader, range(7))
    assert np.array_equal(seen.unpacked(seen.packed(keys)), keys)
    assert seen.unpacked(seen.packed(keys[:0])).shape == (0, 2)
    for odd in (None, 3, "x", "AAAA", {"a": 1}):
        assert seen.unpacked(odd) is None
