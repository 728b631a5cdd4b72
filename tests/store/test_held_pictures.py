"""Flag bit 5 in stores: new ones have it, for older ones the reader supplies it, and a new fit writes it."""

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from small_store import make_store

import store
from store import inspect, layout
from store.inspect import main
from store.layout import StoreError

STANDS = {0: slice(5, 30), 2: slice(0, 40)}  # of the clips, frames with one picture


def aged(path):
    """The store as an earlier release would have made it, with pictures that stand still in two clips, unmarked."""
    writer = store.Writer.open(path)
    reader = store.open(path)
    for shard in range(reader.num_rows // reader.shard_rows):
        first = shard * reader.shard_rows
        rows = reader.rows(first, first + reader.shard_rows, ["mouth"])["mouth"]
        for clip, part in STANDS.items():
            offset = int(reader.clips["offset"][clip]) - first
            if 0 <= offset < len(rows):
                own = rows[offset : offset + int(reader.clips["length"][clip])]
                own[part] = own[part.start]
        writer.write_shard(shard, {"mouth": rows})
    writer.update_attrs({"held_pictures": False})
    writer.consolidate()
    return path


@pytest.fixture
def old(tmp_path):
    return aged(make_store(tmp_path / "old.zarr", {"train": 4}, shard_rows=100, broken=1))


def marked(reader, clip, start=0, stop=40):
    return (reader.frames(clip, start, stop, ["flags"])["flags"] & layout.HELD) > 0


def test_a_new_store_says_that_it_has_the_bit(tmp_path):
    reader = store.open(make_store(tmp_path / "new.zarr", {"train": 2}))
    assert reader.attrs["held_pictures"] is True
    assert not marked(reader, 0).any()  # flags are as they were written


def test_the_reader_supplies_the_bit_of_an_old_store(old):
    reader = store.open(old)
    assert np.flatnonzero(marked(reader, 0)).tolist() == list(range(5, 30))
    assert marked(reader, 2).all()
    assert not marked(reader, 1).any()
    assert np.array_equal(marked(reader, 0, 20, 40), np.arange(20, 40) < 30)  # a window is part of the whole
    assert not (zarr.open(str(old), mode="r")["frames/flags"][:] & layout.HELD).any()


def test_rows_have_the_bit_too_and_other_arrays_are_as_stored(old):
    reader = store.open(old)
    rows = reader.rows(0, reader.num_rows, ["flags", "mouth"])
    for clip in range(3):
        offset = int(reader.clips["offset"][clip])
        assert np.array_equal((rows["flags"][offset : offset + 40] & layout.HELD) > 0, marked(reader, clip))
    assert not (rows["flags"][int(reader.clips["offset"][3]) :] & layout.HELD).any()  # not done
    assert np.array_equal(rows["mouth"], np.asarray(zarr.open(str(old), mode="r")["frames/mouth"]))


def test_crops_are_read_only_where_flags_are_asked_for(old, monkeypatch):
    reader = store.open(old)
    monkeypatch.setattr("store.reading.held.held", lambda mouth, flags: pytest.fail("nobody asked for flags"))
    reader.frames(0, 0, 40, ["vsr", "mouth"])


def test_held_frames_are_no_evidence_for_a_pair(old, tmp_path):
    new = store.open(make_store(tmp_path / "new.zarr", {"train": 4}, shard_rows=100, broken=1))
    reader = store.open(old)
    assert not np.array_equal(reader.pair_similarity(0, 0), new.pair_similarity(0, 0))
    assert np.array_equal(reader.pair_similarity(1, 1), new.pair_similarity(1, 1))
    with pytest.raises(StoreError, match="no frame with face and voice"):
        reader.best_offset(2)


def test_inspect_says_that_an_old_store_lacks_the_bit(old, tmp_path):
    told = CliRunner().invoke(main, [str(old)])
    assert told.exit_code == 0
    assert "held pictures: not marked" in told.output
    assert "--refit" in told.output
    new = make_store(tmp_path / "new.zarr", {"train": 2})
    assert "held pictures" not in CliRunner().invoke(main, [str(new)]).output


def test_an_attribute_of_another_type_is_refused(old):
    store.Writer.open(old).update_attrs({"held_pictures": "yes"})
    with pytest.raises(StoreError, match="held_pictures is 'yes', expected true or false"):
        store.open(old)


def test_teachers_and_fit_are_a_few_words():
    about = {"name": "lips", "dim": 80, "sha256": "0" * 64, "licence": "MIT", "options": {"points": list(range(40))}}
    assert inspect._teacher(about) == "lips, 80 columns, SHA-256 000000000000, licence MIT"
    note = {
        "kind": "cca",
        "fitted_on": {"clips": 4, "frames": 9},
        "auc": {"grid": {"clip": 0.9, "5": 0.8}},
        "steps": [1],
    }
    assert (
        inspect._similarity(note) == "cca; learned on 4 real clips; own sound against swapped, AUC of clips: grid 0.9"
    )
    assert inspect._similarity({"kind": "cca", "fitted_on": {"clips": "many"}}) == "cca"  # a note may hold anything
    assert inspect._similarity({"kind": "cca", "fitted_on": [3], "auc": {"grid": 7}}).startswith("cca")
