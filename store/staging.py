"""Finished batches, kept in `_staging/` until their shard is complete: one file a batch, there whole or not at all.

A file is an uncompressed .npz (a zip of .npy members named CLIP/ARRAY.npy) with one JSON member for the receipts; numpy opens
it too, and no pickle is ever read. Zip keeps a CRC of every member, so a torn file is found out: it counts as not staged and
is removed. Only files that are named as batches are (`pipelines.plan.Batch`) are looked at here.
"""

from __future__ import annotations

import json
import os
import re
import tokenize
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from store import document, npz
from store.layout import StoreError
from store.place import Place, is_url, place

FOLDER = "_staging"
RECEIPTS = "receipts.json"
TABLE, BATCH = 1 << 16, 16 << 20  # bytes read ahead: for the table at the end of a file, for a batch
BATCH_FILE = re.compile(r"\d{12}-\d{9}-\d+\.npz")
_DATE = (1980, 1, 1, 0, 0, 0)  # zip wants one; a constant keeps files of equal batches equal
# What zipfile and numpy raise on a damaged file; RuntimeError is zipfile's for one that claims to be encrypted.
_TORN = (*npz.ERRORS, LookupError, SyntaxError, MemoryError, tokenize.TokenError)
MOST_CLIPS = 1 << 16  # of a batch


def stage(
    root: str | os.PathLike[str] | Place,
    batch_id: str,
    clips: Sequence[Mapping[str, np.ndarray]],
    receipts: Sequence[Mapping[str, Any]],
) -> Place:
    """Keep a batch's arrays, one dict of arrays a clip (empty for a clip that failed), and its receipts (JSON-able dicts).

    Staging the same batch again replaces it. Returns the file; raises StoreError for an id that is no plain name.
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


def _whole(file: Place) -> bool | None:
    """Whether a file is a whole batch; None where it is gone."""
    try:
        with zipfile.ZipFile(file.open().file(TABLE)) as archive:
            return RECEIPTS in archive.namelist() and (is_url(file) or archive.testzip() is None)
    except StoreError:
        raise
    except FileNotFoundError:  # discarded since it was listed
        return None
    except _TORN:
        return False


def load(
    root: str | os.PathLike[str] | Place, batch_id: str
) -> tuple[list[dict[str, np.ndarray]], list[dict[str, Any]]]:
    """Arrays and receipts of a staged batch; raises StoreError, and removes the file, where it is torn."""
    file = _file(root, batch_id)
    try:
        with zipfile.ZipFile(file.open().file(BATCH)) as archive:
            members = npz.bounded(archive)
            notes = _receipts(archive)
            clips: list[dict[str, np.ndarray]] = [{} for _ in range(notes["num_clips"])]
            for member, info in members.items():
                if member == RECEIPTS:
                    continue
                number, name = member.removesuffix(".npy").split("/")
                clips[int(number)][name] = npz.member_array(archive, info)
        return clips, notes["receipts"]
    except FileNotFoundError:
        raise StoreError(f"batch {batch_id} is not staged in {file.parent}") from None
    except _TORN as e:
        file.delete()
        raise StoreError(f"staged batch {batch_id} is torn ({e}) and was removed; run it again") from e


def _receipts(archive: zipfile.ZipFile) -> dict[str, Any]:
    notes = document.parse_dict(archive.read(RECEIPTS))
    if not document.is_count(notes["num_clips"], 0, MOST_CLIPS) or not isinstance(notes["receipts"], list):
        raise ValueError("its receipts are none")
    return notes


def receipts(root: str | os.PathLike[str] | Place, batch_id: str) -> list[dict[str, Any]]:
    """The receipts of a staged batch alone, some kilobytes of a file of megabytes; StoreError where it is torn or gone."""
    file = _file(root, batch_id)
    try:
        with zipfile.ZipFile(file.open().file(TABLE)) as archive:
            npz.bounded(archive)
            return _receipts(archive)["receipts"]
    except FileNotFoundError:
        raise StoreError(f"batch {batch_id} is not staged in {file.parent}") from None
    except _TORN as e:
        file.delete()
        raise StoreError(f"staged batch {batch_id} is torn ({e}) and was removed; run it again") from e


def discard(root: str | os.PathLike[str] | Place, batch_ids: Iterable[str]) -> None:
    """Remove staged batches; those that are gone already are fine."""
    where = place(root).confined()
    where.map(lambda batch_id: _file(where, batch_id).delete(), batch_ids)


def _file(root: str | os.PathLike[str] | Place, batch_id: str) -> Place:
    if not BATCH_FILE.fullmatch(f"{batch_id}.npz"):
        raise StoreError(f'batch id "{batch_id}" must be OFFSET-CLIP-CLIPS in digits, such as 000000000000-000000000-8')
    return place(root).confined() / FOLDER / f"{batch_id}.npz"
