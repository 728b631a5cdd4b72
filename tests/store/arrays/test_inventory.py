"""The inventory of a store: lost or changed files are noticed by readers and by --verify, and repaired if possible."""

import json
import os
import shutil

import numpy as np
import pytest
import zarr
from small_store import make_store

import store
from pipelines.labels.second_pass import Wish, foreign_shards, second_pass
from store import inspect, mend
from store.arrays import inventory
from store.layout import StoreError


@pytest.fixture
def path(tmp_path):
    return make_store(tmp_path / "s.zarr", {"train": 6}, fit=True)


def values(path):
    """Every number that the store gives, read anew."""
    reader = store.open(path)
    found = [reader.pair_similarity(0, k, window=w) for k in (0, 3) for w in (5, 25, "clip")]
    found += [reader.frames(k, 0, 40, reader.names)[name] for k in range(6) for name in reader.names]
    return [*found, *(reader.clips[name] for name in sorted(reader.clips))]


def assert_same(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_lost_window_of_the_calibration_is_no_other_number(path):
    want = values(path)
    shutil.rmtree(path / "fit/calibration/synthetic/5")
    with pytest.raises(StoreError, match=r"fit/calibration/synthetic/5.* is damaged; precompute.py --refit"):
        values(path)
    damage = inspect.verify(store.open(path))
    assert [fault.array for fault in damage] == ["fit/calibration/synthetic/5"]
    assert len(want)


@pytest.mark.parametrize("lost", ["zarr.json", "5/zarr.json", "5/c/0"])
def test_each_file_of_the_calibration_is_missed(path, lost):
    (path / "fit/calibration/synthetic" / lost).unlink()
    with pytest.raises(StoreError, match=r"fit/calibration/synthetic"):
        values(path)


@pytest.mark.parametrize("lost", ["5", "25", "clip", ""])
def test_a_store_without_an_inventory_misses_them_too(path, lost):
    writer = store.Writer.open(path)
    note = {"kind": "cca", "complete": True, "calibrated_on": {"synthetic": {"clips": 6}}}
    writer.update_attrs({"similarity": note, inventory.MARK: None})
    (path / inventory.FILE).unlink()
    values(path)
    shutil.rmtree(path / "fit/calibration/synthetic" / lost)
    with pytest.raises(StoreError, match="calibration of synthetic lacks the window"):
        values(path)


def test_a_lost_fit_is_missed(path):
    shutil.rmtree(path / "fit")
    with pytest.raises(StoreError, match=r"fit.* is damaged; precompute.py --refit"):
        values(path)


@pytest.mark.parametrize("array", ["mouth", "similarity", "flags", "asr"])
def test_a_lost_frame_array_is_missed_and_named(path, array):
    shutil.rmtree(path / "frames" / array)
    with pytest.raises(StoreError, match=f"frames/{array} is damaged"):
        store.open(path)


@pytest.mark.parametrize(
    "key", ["frames/audio/zarr.json", "clips/label/zarr.json", "clips/zarr.json", "frames/zarr.json"]
)
def test_metadata_that_can_be_told_from_the_rest_is_written_anew(path, key):
    want, before = values(path), (path / key).read_bytes()
    for damage in (
        None,
        b"{",
        before.replace(b"regular", b"irregul"),
        before.replace(b'"zarr_format": 3', b'"zarr_format": 2'),
    ):
        (path / key).unlink() if damage is None else (path / key).write_bytes(damage)
        writer = store.Writer.open(path)
        if damage != before:
            assert list(mend.damage(writer)) == [key]
        mend.mend_metadata(writer)
        assert (path / key).read_bytes() == before
        assert mend.damage(writer) == {}
        assert_same(values(path), want)


def test_an_attribute_that_was_changed_is_noticed_and_one_that_was_added_is_not(path):
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["note"] = "mine"
    (path / "zarr.json").write_text(json.dumps(document))
    assert store.open(path).attrs["note"] == "mine"
    document["attributes"]["fps"] = 24
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match="attribute fps is not what the run wrote"):
        store.open(path)


def test_a_lost_inventory_is_said_and_the_next_run_writes_it_anew(path):
    (path / inventory.FILE).unlink()
    with pytest.raises(StoreError, match=r"inventory.json is missing.*precompute.py --store"):
        store.open(path)
    writer = store.Writer.open(path)
    assert mend.damage(writer) == {}
    mend.mend_metadata(writer)
    writer.begin()
    writer.consolidate()
    values(path)
    assert store.open(path).inventory.complete


@pytest.mark.parametrize("change", [b"true", b'"complete": true'])
def test_a_changed_inventory_is_said(path, change):
    file = path / inventory.FILE
    file.write_bytes(file.read_bytes().replace(change, b"[]", 1))
    with pytest.raises(StoreError, match=r"inventory.json is damaged"):
        store.open(path)


def test_an_inventory_that_is_no_file_is_said(path):
    (path / inventory.FILE).unlink()
    os.mkfifo(path / inventory.FILE)
    with pytest.raises(StoreError, match=r"inventory.json cannot be read \(it is not a regular file\)"):
        store.open(path)


def test_while_a_run_writes_readers_do_not_hold_it_to_the_inventory(path):
    reader = store.open(path)
    writer = store.Writer.open(path)
    writer.write_clips(0, {"quality": [0.25] * 6})
    assert not store.open(path).inventory.complete
    assert store.open(path).clips["quality"][0] == 0.25
    writer.write_fit(reader.fit.to_arrays())
    writer.consolidate()
    stale = store.open(path)
    writer.drop("fit")
    with pytest.raises(StoreError, match="changed by a run since it was opened"):
        stale.fit  # noqa: B018
    assert reader.fit is not None  # it was read before


def test_a_store_of_before_has_no_inventory_and_gets_one(path):
    (path / inventory.FILE).unlink()
    document = json.loads((path / "zarr.json").read_text())
    del document["attributes"][inventory.MARK]
    (path / "zarr.json").write_text(json.dumps(document))
    want = values(path)
    writer = store.Writer.open(path)
    assert mend.damage(writer) == {}
    writer.begin()
    writer.consolidate()
    assert store.open(path).inventory.complete
    assert_same(values(path), want)


# -- shards that were written, but not there ---------------------------------------------------------------------------


def swapped_arrays(path, other):
    """Two arrays of one kind, each in the other's place."""
    a, b = (path / "frames" / name / "c/0/0" for name in ("asr_projection", "vsr_projection"))
    a.rename(path / "aside")
    b.rename(a)
    (path / "aside").rename(b)


def shard_of_another_store(path, other):
    shutil.copy(other / "frames/mouth/c/0/0/0", path / "frames/mouth/c/0/0/0")


def labels_of_another_fit(path, other):
    shutil.copy(other / "frames/similarity/c/0", path / "frames/similarity/c/0")


def fit_of_another_store(path, other):
    """With all that knows of it."""
    shutil.rmtree(path / "fit")
    shutil.copytree(other / "fit", path / "fit")
    for name in ("inventory.json", "zarr.json"):
        shutil.copy(other / name, path / name)


def labels_edited_by_zarr(path, other):
    zarr.open(path, mode="r+")["frames/similarity"][:7] = 0.25


def one_method_for_all(path, other):
    zarr.open(path, mode="r+")["frames/fake"][:] = 1


@pytest.mark.parametrize(
    "harm",
    [
        swapped_arrays,
        shard_of_another_store,
        labels_of_another_fit,
        fit_of_another_store,
        labels_edited_by_zarr,
        one_method_for_all,
    ],
)
def test_a_shard_that_was_written_for_another_place_is_no_other_number(path, tmp_path, harm):
    other = make_store(tmp_path / "o.zarr", {"train": 6}, fit=True, seed=1)
    open_before = store.open(path)
    before = values(path)
    harm(path, other)
    with pytest.raises(StoreError, match=r"is not the shard that the run wrote|is damaged|put there by no run"):
        values(path)
    assert inspect.verify(store.open(path))
    for k in range(6):
        try:
            mouth = open_before.frames(k, 0, 40, ["mouth"])["mouth"]
        except StoreError:
            continue
        np.testing.assert_array_equal(
            mouth, before[[*store.open(path).names].index("mouth") + 6 + k * len(open_before.names)]
        )


def relabel(path, config, foreign=()):
    writer = store.Writer.open(path)
    writer.begin()
    second_pass(path, writer, config, lambda function, jobs, gpu=False: (function(*job) for job in jobs), foreign)
    writer.consolidate()


def test_a_run_writes_foreign_labels_anew(path, tmp_path):
    relabel(path, Wish("cosine", refit=True))
    want = values(path)
    labels_of_another_fit(path, make_store(tmp_path / "o.zarr", {"train": 6}, fit=True, seed=1))
    foreign = foreign_shards(store.open(path))
    assert foreign == [0]
    relabel(path, Wish(), foreign)
    assert_same(values(path), want)


def test_two_fits_side_by_side_give_no_number(path):
    """Of a refit that was cut off after it had written the fit, and for a reader that was opened before one."""
    relabel(path, Wish("cosine", refit=True))
    want, early, writer = values(path), store.open(path), store.Writer.open(path)
    assert early.fit is not None
    writer.begin()
    writer.update_attrs({"similarity": {**writer.attrs["similarity"], "complete": False}})
    late = store.open(path)
    for ask in (lambda r: r.fit, lambda r: r.pair_similarity(0, 1), lambda r: r.frames(0, 0, 5, ["similarity"])):
        with pytest.raises(StoreError, match=r"is being replaced, or a run that did so was interrupted"):
            ask(late)
    assert late.new_fit is not None
    assert late.frames(0, 0, 5, ["asr"])["asr"].any()
    assert [fault.array for fault in inspect.verify(late)] == ["fit"]
    labels_edited_by_zarr(path, None)
    with pytest.raises(StoreError, match="was changed by a run"):
        early.frames(0, 0, 5, ["similarity"])
    relabel(path, Wish())
    assert_same(values(path), want)
