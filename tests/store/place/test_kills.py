"""A kill between any two changes of a store leaves what was there or what comes next, never half of either."""

import itertools

import numpy as np
import obstore
import pytest
from test_object_store import emptied, filled
from test_store import WIDTHS, fit_of, small

import store
from store import layout
from store.place import folder


class Killed(BaseException):
    """What stops a writer between two steps."""


@pytest.fixture
def kill(monkeypatch):
    """kill(n): the n-th change from now on, and all after it, are not made; None: all are made. Returns a counter."""
    state = {"left": None, "made": 0}

    def guarded(function):
        def call(*args, **kwargs):
            if state["left"] is not None and state["made"] >= state["left"]:
                raise Killed
            state["made"] += 1
            return function(*args, **kwargs)

        return call

    for name in ("put", "delete"):
        monkeypatch.setattr(obstore, name, guarded(getattr(obstore, name)))
    for name in ("replace", "rename", "unlink", "rmdir"):
        monkeypatch.setattr(folder.os, name, guarded(getattr(folder.os, name)))

    def arm(left):
        state.update(left=left, made=0)
        return state

    return arm


def killed_everywhere(kill, act, check, step=1):
    """Run `act` with a kill before its first change, its second (or `step` later), ... until it comes through; `check`
    after each."""
    for left in range(0, 1000, step):
        kill(left)
        try:
            act()
        except Killed:
            kill(None)
            check(left)
        else:
            kill(None)
            assert left > 0
            return
    raise AssertionError("it never came through")


def test_a_kill_while_a_fit_is_replaced_leaves_the_old_one_or_the_new_one(killed, kill):
    root, step = killed
    writer = small(root)
    writer.write_fit(fit_of("old", 1.0).to_arrays())
    writer.consolidate()
    seen = set()

    def check(left):
        fit = store.open(root).fit  # as readers find it before the next run: whole, or none
        assert fit is None or fit.calibration in (fit_of("old", 1.0).calibration, fit_of("new", 2.0).calibration)
        store.Writer.open(root).tidy()
        seen.add(*store.open(root).fit.calibration)
        names = {key.partition("/")[0] for key in root.files()}
        assert names <= {"zarr.json", "inventory.json", "clips", "frames", "fit"}
        store.Writer.open(root).write_fit(fit_of("old", 1.0).to_arrays())

    killed_everywhere(kill, lambda: writer.write_fit(fit_of("new", 2.0).to_arrays()), check, step)
    assert seen == {"old", "new"}
    assert set(store.open(root).fit.calibration) == {"new"}


def test_a_kill_while_a_store_is_made_leaves_none_and_the_next_try_makes_it(killed, kill, tmp_path):
    root, step = killed
    want = store.create(tmp_path / "want", WIDTHS, {}).place

    def check(left):
        if (root / "zarr.json").exists():  # its last file is there, and with it the store
            assert len(store.open(root)) == 0
        else:
            store.create(root, WIDTHS, {})
            assert root.files() == want.files()
        emptied(root)

    kind = {"face": ("u1", (9, 9))}  # an array that the next try does not have
    killed_everywhere(kill, lambda: store.create(root, WIDTHS, {}, kind), check, step)


def test_a_kill_while_projections_are_made_anew_leaves_them_or_none(killed, kill):
    root, step = killed
    writer, whole = filled(root)

    def check(left):
        reader = store.open(root)
        for name in set(reader.names) & set(layout.PROJECTIONS):
            assert reader.array(name).shape[1] in (3, 4)
        store.Writer.open(root).ensure_projections(4)
        assert store.open(root).damaged_shards(layout.PROJECTIONS) == {name: [0, 1] for name in layout.PROJECTIONS}
        writer.ensure_projections(3)
        for shard in range(3):
            rows = {name: whole[name][20 * shard : 20 * shard + 20] for name in layout.PROJECTIONS}
            writer.write_shard(shard, rows)

    killed_everywhere(kill, lambda: writer.ensure_projections(4), check, step)


def test_a_kill_while_clips_are_added_leaves_the_others_as_they_were(killed, kill):
    root, step = killed
    writer, _ = filled(root)
    before = store.open(root).clips
    ids = map(str, itertools.count())

    def check(left):
        clips = store.open(root).clips
        for name, column in before.items():
            np.testing.assert_array_equal(clips[name][:3], column)
        assert not clips["done"][3:].any()

    killed_everywhere(kill, lambda: writer.append_clips({"id": [next(ids)], "label": [1]}), check, 3 * step)
    assert store.open(root).clips["label"].tolist()[-1] == 1
