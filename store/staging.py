"""Finished batches, kept in `_staging/` until their shard is complete: one file per batch, written atomically.

A file is an uncompressed .npz (a zip of .npy members named CLIP/ARRAY.npy) with one JSON member for the receipts; numpy
opens it too, and no pickle is ever read. Zip keeps a CRC of every member, so an incomplete file is detected: it counts
as not staged and is removed. Only files that are named as batches are (`pipelines.workers.plan.Batch`) are looked at
here.
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import tokenize
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from concord import plain_json
from store.formats import npz
from store.layout import STAGING, StoreError
from store.place import Opened, Place, is_url, place

FOLDER = STAGING
RECEIPTS = "receipts.json"
TABLE, BATCH = 1 << 16, 16 << 20  # bytes read ahead: for the table at the end of a file, for a batch
LOCAL, HEAD = 30, 1 << 12  # bytes of a member's own header, and at most of an array's
BATCH_FILE = re.compile(r"\d{12}-\d{9}-\d+(\.[a-z]+)?\.npz")  # with the name of a stage: a long clip between two
STAGED = re.compile(rf"{FOLDER}/\d{{12}}-\d{{9}}-(\d{{1,9}})\.npz")
_DATE = (1980, 1, 1, 0, 0, 0)  # zip wants one; a constant keeps files of equal batches equal
# What zipfile and numpy raise on a damaged file; RuntimeError is zipfile's for one that claims to be encrypted.
_TORN = (*npz.ERRORS, LookupError, SyntaxError, MemoryError, tokenize.TokenError, struct.error)
MOST_CLIPS = 1 << 16  # of a batch


class Receipts(NamedTuple):
    """Number of clips in a batch, and what became of each."""

    num_clips: int
    receipts: list[dict[str, Any]]


def stage(
    root: str | os.PathLike[str] | Place,
    batch_id: str,
    clips: Sequence[Mapping[str, np.ndarray]],
    receipts: Sequence[Mapping[str, Any]],
) -> Place:
    """Keep a batch's arrays, one dict of arrays a clip (empty for a clip that failed), and its receipts (JSON-able dicts).

    Staging the same batch again replaces it. Returns the file; raises StoreError for an id that is not a plain name.
    """
    final = _file(root, batch_id)
    with final.writing() as f, zipfile.ZipFile(f, "w", zipfile.ZIP_STORED) as archive:
        for number, arrays in enumerate(clips):
            for name, array in arrays.items():
                with archive.open(zipfile.ZipInfo(f"{number}/{name}.npy", _DATE), "w", force_zip64=True) as out:
                    np.lib.format.write_array(out, np.ascontiguousarray(array), allow_pickle=False)
        text = json.dumps({"num_clips": len(clips), "receipts": [dict(r) for r in receipts]})
        archive.writestr(zipfile.ZipInfo(RECEIPTS, _DATE), text)
    return final


def staged(root: str | os.PathLike[str] | Place) -> set[str]:
    """Ids of the batches that are staged whole; torn ones are removed.

    Local files are read and checked. A bucket has an object whole or not at all, so there the table at its end is enough.
    """
    folder = place(root).confined() / FOLDER
    files = [name for name in folder.names() if BATCH_FILE.fullmatch(name)]
    whole = folder.map(lambda name: _whole(folder / name), files)
    for name, is_whole in zip(files, whole, strict=True):
        if is_whole is False:
            (folder / name).delete()
    return {name.removesuffix(".npz") for name, is_whole in zip(files, whole, strict=True) if is_whole}


def clips(keys: Iterable[str]) -> int:
    """Number of clips in the batches among a store's files, by their names; a long clip between two stages does not count."""
    found = (STAGED.fullmatch(key) for key in keys)
    return sum(int(name[1]) for name in found if name)


def _whole(file: Place) -> bool | None:
    """Whether a file is a whole batch; None where it is gone."""
    try:
        with zipfile.ZipFile(file.open().file(TABLE)) as archive:
            return RECEIPTS in archive.namelist() and (is_url(file) or archive.testzip() is None)
    except FileNotFoundError:  # discarded since it was listed
        return None
    except _TORN as e:
        _raise_if_unread(file, e)
        return False


def _raise_if_unread(file: Place, error: Exception) -> None:
    """Raises StoreError where the disk fails, which does not make the file torn; zipfile may hide it in a BadZipFile."""
    for one in (error, error.__context__):
        if isinstance(one, OSError) and one.errno:  # none: a damaged table led before the file's beginning
            raise StoreError(f"{file} cannot be read ({one.strerror}); see to its disk and run again") from error


def load(
    root: str | os.PathLike[str] | Place, batch_id: str
) -> tuple[list[dict[str, np.ndarray]], list[dict[str, Any]]]:
    """Arrays and receipts of a staged batch; raises StoreError, and removes the file, where it is torn."""
    file = _file(root, batch_id)
    with _torn_is_removed(file, batch_id):
        with zipfile.ZipFile(file.open().file(BATCH)) as archive:
            members = npz.bounded(archive)
            notes = _receipts(archive)
            clips: list[dict[str, np.ndarray]] = [{} for _ in range(notes.num_clips)]
            for member, info in members.items():
                if member == RECEIPTS:
                    continue
                number, name = member.removesuffix(".npy").split("/")
                clips[int(number)][name] = npz.member_array(archive, info)
        return clips, notes.receipts


@contextmanager
def _torn_is_removed(file: Place, batch_id: str) -> Iterator[None]:
    """Turns what reading a staged file raises into a StoreError, and removes the file where it is torn."""
    try:
        yield
    except FileNotFoundError:
        raise StoreError(f"batch {batch_id} is not staged in {file.parent}") from None
    except _TORN as e:
        _raise_if_unread(file, e)
        file.delete()
        raise StoreError(f"staged batch {batch_id} is torn ({e}) and was removed; run it again") from e


def _receipts(archive: zipfile.ZipFile) -> Receipts:
    notes = plain_json.parse_dict(archive.read(RECEIPTS))
    if not plain_json.is_count(notes["num_clips"], 0, MOST_CLIPS) or not isinstance(notes["receipts"], list):
        raise ValueError("its receipts are not a list")
    return Receipts(notes["num_clips"], notes["receipts"])


def receipts(root: str | os.PathLike[str] | Place, batch_id: str) -> list[dict[str, Any]]:
    """The receipts of a staged batch alone, some kilobytes of a file of megabytes; StoreError where it is torn or gone."""
    file = _file(root, batch_id)
    with _torn_is_removed(file, batch_id), zipfile.ZipFile(file.open().file(TABLE)) as archive:
        npz.bounded(archive)
        return _receipts(archive).receipts


class Rows:
    """An array of a staged batch that is read by its rows: `rows[a:b]`, and no more than that comes into memory."""

    def __init__(self, opened: Opened, file: Place, at: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._opened, self._file, self._at = opened, file, at
        self.dtype, self.shape = dtype, shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(len(self))
        each = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        data = self._opened.read(self._at + start * each, max(stop - start, 0) * each)
        return np.frombuffer(data, self.dtype).reshape(-1, *self.shape[1:])

    def mapped(self) -> np.ndarray:
        """All rows, read-only: on this machine as pages of the file, which the system may drop; of a bucket in memory."""
        if is_url(self._file) or not self.shape[0]:
            return self[:]
        return np.memmap(self._file.path, self.dtype, "r", self._at, self.shape)


def rows(root: str | os.PathLike[str] | Place, batch_id: str) -> tuple[list[dict[str, Rows]], list[dict[str, Any]]]:
    """As `load`, the arrays to be read by rows; for clips too long to have in memory several times.

    The file is read once, to see that it is whole. Raises StoreError, and removes the file, where it is torn.
    """
    file = _file(root, batch_id)
    with _torn_is_removed(file, batch_id):
        opened = file.open()
        with zipfile.ZipFile(opened.file(BATCH)) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("a member's checksum does not match")
            npz.bounded(archive)
            notes = _receipts(archive)
            clips: list[dict[str, Rows]] = [{} for _ in range(notes.num_clips)]
            for info in archive.infolist():
                if info.filename != RECEIPTS:
                    number, name = info.filename.removesuffix(".npy").split("/")
                    clips[int(number)][name] = Rows(opened, file, *_array(opened, info))
        return clips, notes.receipts


def _array(opened: Opened, info: zipfile.ZipInfo) -> tuple[int, np.dtype[Any], tuple[int, ...]]:
    """Where the rows of a member begin in the file, and their type and shape. Raises one of _TORN."""
    local = opened.read(info.header_offset, LOCAL)  # its name and extra field may differ from the table's
    start = info.header_offset + LOCAL + sum(struct.unpack("<HH", local[26:]))
    head = io.BytesIO(opened.read(start, min(info.file_size, HEAD)))
    version = np.lib.format.read_magic(head)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(head)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    stored = info.compress_type == zipfile.ZIP_STORED and not fortran and not dtype.hasobject
    if not stored or head.tell() + size != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename} is not the array that its header tells of")
    return start + head.tell(), dtype, shape


def discard(root: str | os.PathLike[str] | Place, batch_ids: Iterable[str]) -> None:
    """Remove staged batches; those that are gone already are fine."""
    where = place(root).confined()
    where.map(lambda batch_id: _file(where, batch_id).delete(), batch_ids)


def _file(root: str | os.PathLike[str] | Place, batch_id: str) -> Place:
    if not BATCH_FILE.fullmatch(f"{batch_id}.npz"):
        raise StoreError(f'batch id "{batch_id}" must be OFFSET-CLIP-CLIPS in digits, such as 000000000000-000000000-8')
    return place(root).confined() / FOLDER / f"{batch_id}.npz"
