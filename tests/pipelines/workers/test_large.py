"""Arrays of long clips in files: numpy's zeros otherwise, sent between processes without a copy, nothing left behind."""

import errno
import gc
import importlib
import os
import tempfile
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest

from concord.arrays import large
from pipelines.workers import isolation
from store.similarity import fitfile
from teachers import lips


@pytest.fixture
def small(monkeypatch):
    """Files from 1,000 bytes on."""
    monkeypatch.setattr(large, "LARGE", 1000)


def held(folder):
    """How many open files of this process are in `folder`, those without a name included."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # closed since, as the list's own is
            found += os.readlink(f"/proc/self/fd/{name}").startswith(f"{folder}/")
    return found


def test_they_are_arrays_of_zeros(small):
    for shape, dtype in (((10, 96, 96), np.uint8), ((700,), np.int16), ((5, 4), np.float32)):
        array = large.zeros(shape, dtype)
        assert array.shape == shape
        assert array.dtype == dtype
        assert not array.any()
        array[-1] = 3
        assert (array[-1] == 3).all()
        assert (large.descriptor(memoryview(array).cast("B")) is not None) == (array.nbytes >= 1000)


def test_files_go_with_the_last_view(small, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files = len(large._files)
    array = large.zeros((50, 100), np.uint8)
    assert held(tmp_path) > 0
    assert os.listdir(tmp_path) == []
    part = array[10:20].T
    array = None
    part[:] = 7
    assert part.sum() == 7 * 1000
    part = None
    gc.collect()
    assert held(tmp_path) == 0
    assert len(large._files) == files


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EOPNOTSUPP])
def test_without_space_they_are_in_memory(small, tmp_path, monkeypatch, error):
    def full(*args):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    array = large.zeros((50, 100), np.uint8)
    assert array.sum() == 0
    assert large.descriptor(memoryview(array).cast("B")) is None
    assert held(tmp_path) == 0


def test_lips_are_centred_in_parts_as_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    points = rng.normal(0, 20, (1000, 40, 2)).astype(np.float32)
    flags = (rng.random(1000) > 0.1).astype(np.uint8)
    clip = SimpleNamespace(num_frames=1000, flags=flags, lips=points)
    whole = lips.Lips().embed([clip])[0]
    monkeypatch.setattr(lips, "PART", 7)
    assert np.array_equal(lips.Lips().embed([clip])[0], whole)
    flat = points.reshape(1000, 80).astype(np.float64)
    wanted = np.where(flags[:, None] > 0, flat - flat[flags > 0].mean(axis=0), 0)
    assert np.array_equal(whole, wanted.astype(np.float32))


def test_projections_are_compared_in_parts_as_at_once(monkeypatch):
    fit, compare = fitfile.default()[0], importlib.import_module("store.similarity.compare")
    rng = np.random.default_rng(0)
    pair = [rng.normal(0, 1, (1000, fit.dims)).astype(np.float16) for _ in range(2)]
    whole = [compare.scores(*pair, fit, window) for window in (5, "clip")]
    monkeypatch.setattr(compare, "ROWS", 64)
    for window, wanted in zip((5, "clip"), whole, strict=True):
        np.testing.assert_allclose(compare.scores(*pair, fit, window), wanted, rtol=0, atol=1e-7)


class Doubles:
    """Made in a child: twice the array, as a large one, and a part of it."""

    def __call__(self, value):
        out = large.zeros(value.shape, value.dtype)
        out[:] = 2 * value
        return out, out[5:7], out.dtype


def test_a_child_sends_and_gets_files(monkeypatch):
    value = large.zeros((9, 8 << 20), np.uint8)
    value[:, ::1000] = np.arange(9, dtype=np.uint8)[:, None]
    assert large.descriptor(memoryview(value).cast("B")) is not None
    child = isolation.Child(Doubles)
    try:
        for _ in range(2):
            found, part, dtype = child(value, 60.0)
            assert dtype == np.uint8
            assert np.array_equal(found, 2 * value)
            assert np.array_equal(part, 2 * value[5:7])
            assert large.descriptor(memoryview(found).cast("B")) is not None
            with pytest.raises(ValueError, match="read-only"):
                found[0] = 1
    finally:
        child.close()


def test_arrays_wait_in_one_file_and_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    arrays = [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        np.zeros((0, 96, 96), np.uint8),
        np.arange(40, dtype=np.uint8).reshape(4, 10)[:, ::2],
        np.array([[True, False]]),
    ]
    shelf = large.Shelf()
    waiting = [shelf.put(array) for array in arrays]
    assert held(tmp_path) == 1
    for array, back in reversed([*zip(arrays, waiting, strict=True)]):
        np.testing.assert_array_equal(back(), array)
        assert back().dtype == array.dtype
    del shelf, waiting, back
    gc.collect()
    assert held(tmp_path) == 0


@pytest.mark.parametrize("after", [0, 1])
def test_what_a_full_disk_cannot_hold_waits_in_memory(after, monkeypatch):
    true = os.pwrite

    def full(*arguments):
        nonlocal after
        if after == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        after -= 1
        return true(*arguments)

    monkeypatch.setattr(os, "pwrite", full)
    shelf = large.Shelf()
    arrays = [np.full((5, 7), k) for k in range(3)]
    waiting = [shelf.put(array) for array in arrays]
    for array, back in zip(arrays, waiting, strict=True):
        np.testing.assert_array_equal(back(), array)
