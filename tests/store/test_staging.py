"""Finished batches under `_staging/`: there whole or not at all."""

import errno
import os

import numpy as np
import pytest

from store import staging
from store.layout import StoreError
from store.place import folder

BATCH = "000000000000-000000000-3"


def batch():
    rng = np.random.default_rng(0)
    clips = [{"mouth": rng.integers(0, 255, (n, 96, 96), "u1"), "asr": rng.random((n, 6), "f4")} for n in (3, 2)]
    return [*clips, {}], [{"id": "ü", "seconds": 1.5}, {"id": "b"}, {"id": "c", "reason": "no_face"}]


def test_a_staged_batch_reads_back(tmp_path):
    clips, receipts = batch()
    assert staging.staged(tmp_path) == set()
    file = staging.stage(tmp_path, BATCH, clips, receipts).path
    assert staging.staged(tmp_path) == {BATCH}
    got, notes = staging.load(tmp_path, BATCH)
    assert notes == receipts
    assert [sorted(c) for c in got] == [["asr", "mouth"], ["asr", "mouth"], []]
    np.testing.assert_array_equal(got[1]["mouth"], clips[1]["mouth"])
    with np.load(file, allow_pickle=False) as plain:
        np.testing.assert_array_equal(plain["0/asr"], clips[0]["asr"])
    first = file.read_bytes()
    assert staging.stage(tmp_path, BATCH, clips, receipts).read() == first
    staging.discard(tmp_path, [BATCH, "000000000000-000000009-1"])
    assert staging.staged(tmp_path) == set()
    with pytest.raises(StoreError, match=f"{BATCH} is not staged"):
        staging.load(tmp_path, BATCH)


@pytest.mark.parametrize(
    "call", [staging.staged, *(lambda root, f=f: f(root, BATCH) for f in (staging.load, staging.receipts))]
)
@pytest.mark.parametrize("fails", [0, 1])
def test_a_disk_that_fails_to_read_costs_no_batch(tmp_path, monkeypatch, call, fails):
    """At the table, or after it."""
    file = staging.stage(tmp_path, BATCH, *batch()).path
    read, reads = folder._File.read, []

    def failing(opened, offset, length):
        reads.append(offset)
        if len(reads) > fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(opened, offset, length)

    monkeypatch.setattr(folder._File, "read", failing)
    monkeypatch.setattr(staging, "TABLE", 1 << 10)
    monkeypatch.setattr(staging, "BATCH", 1 << 10)
    with pytest.raises(StoreError, match=r"cannot be read \(Input/output error\)"):
        call(tmp_path)
    monkeypatch.undo()
    assert file.exists()
    assert staging.staged(tmp_path) == {BATCH}


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_batch_is_not_staged_and_is_removed(tmp_path, share):
    file = staging.stage(tmp_path, BATCH, *batch()).path
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(StoreError, match=f"batch {BATCH} is torn"):
        staging.load(tmp_path, BATCH)
    assert not file.exists()
    file.write_bytes(data[: int(len(data) * share)])
    assert staging.staged(tmp_path) == set()
    assert not file.exists()


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_batch_with_a_flipped_byte_is_torn_or_unchanged(tmp_path, mask):
    clips = [{"asr": np.arange(6, dtype="f4").reshape(2, 3)}, {}, {"face": np.arange(3, dtype="u1")}]
    receipts = [{"id": "a"}, {"id": "b", "reason": "no_face"}, {"id": "ü"}]
    file = staging.stage(tmp_path, BATCH, clips, receipts).path
    whole = file.read_bytes()
    for position in range(len(whole)):  # each byte of a small one: the tables of zip, the headers of numpy, the arrays
        file.write_bytes(whole[:position] + bytes([whole[position] ^ mask]) + whole[position + 1 :])
        try:
            got, notes = staging.load(tmp_path, BATCH)
        except StoreError:
            assert not file.exists()
        else:  # the byte was one that zip does not need, such as a date
            assert notes == receipts
            assert [{k: v.tolist() for k, v in c.items()} for c in got] == [
                {k: v.tolist() for k, v in c.items()} for c in clips
            ]


def test_a_batch_with_a_changed_array_is_not_staged_and_is_removed(tmp_path):
    clips, receipts = batch()
    file = staging.stage(tmp_path, BATCH, clips, receipts).path
    data = bytearray(file.read_bytes())
    data[data.index(clips[0]["mouth"].tobytes()) + 1000] ^= 1
    file.write_bytes(data)
    assert staging.staged(tmp_path) == set()
    assert not file.exists()


def test_staging_that_fails_halfway_leaves_nothing(tmp_path):
    clips, _ = batch()
    with pytest.raises(ValueError, match="allow_pickle"):
        staging.stage(tmp_path, BATCH, [*clips, {"bad": np.array([object()])}], [])
    assert list((tmp_path / "_staging").iterdir()) == []
    with pytest.raises(StoreError, match="batch id"):
        staging.stage(tmp_path, "../b", clips, [])


def test_a_batch_being_written_is_not_staged(tmp_path):
    file = staging.stage(tmp_path, BATCH, *batch()).path
    file.rename(file.with_name("b.npz.0123.tmp"))
    assert staging.staged(tmp_path) == set()
    assert len(list((tmp_path / "_staging").iterdir())) == 1


def test_receipts_are_read_without_their_batch(tmp_path, monkeypatch):
    clips = [{"mouth": np.random.default_rng(k).integers(0, 255, (100, 96, 96), "u1")} for k in range(3)]
    file = staging.stage(tmp_path, BATCH, clips, [{"id": "a"}, {"id": "b"}, {"id": "c"}])
    read, original = [], folder._File.read

    def counted(self, offset, length):
        data = original(self, offset, length)
        read.append(len(data))
        return data

    monkeypatch.setattr(folder._File, "read", counted)
    assert staging.receipts(tmp_path, BATCH) == [{"id": "a"}, {"id": "b"}, {"id": "c"}]
    assert sum(read) < 200_000 < file.path.stat().st_size / 10
    (tmp_path / "_staging" / f"{BATCH}.npz").write_bytes(b"PK")
    with pytest.raises(StoreError, match=f"{BATCH} is torn"):
        staging.receipts(tmp_path, BATCH)


def test_files_that_are_named_otherwise_are_nobodys_batches(tmp_path):
    (tmp_path / "_staging").mkdir()
    for name in ("mine.npz", "b.npz", "000000000000-x-3.npz"):
        (tmp_path / "_staging" / name).write_bytes(b"mine")
    assert staging.staged(tmp_path) == set()
    assert len(list((tmp_path / "_staging").iterdir())) == 3
