"""Finished batches, kept in `_staging/` until their shard is complete: one file a batch, there whole or not at all.

A file is an uncompressed .npz (a zip of .npy members named CLIP/ARRAY.npy) with one JSON member for the receipts; numpy opens
it too, and no pickle is ever read. A batch is written under a temporary name in the same folder, flushed to the disk and
renamed. Zip keeps a CRC of every member, so a torn file is found out: it counts as not staged and is removed.
"""

from __future__ import annotations

import json
import os
import re
import uuid
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from store.layout import StoreError, local_path

FOLDER = "_staging"
RECEIPTS = "receipts.json"
_DATE = (1980, 1, 1, 0, 0, 0)  # zip wants one; a constant keeps files of equal batches equal
_TORN = (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError, NotImplementedError)


def stage(
    root: str | os.PathLike[str],
    batch_id: str,
    clips: Sequence[Mapping[str, np.ndarray]],
    receipts: Sequence[Mapping[str, Any]],
) -> Path:
    """Keep a batch's arrays, one dict of arrays a clip (empty for a clip that failed), and its receipts (JSON-able dicts).

    Staging the same batch again replaces it. Returns the file; raises StoreError for an id that is no plain name.
    """
    final = _file(root, batch_id)
    final.parent.mkdir(exist_ok=True)
    temporary = final.with_name(f"{final.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as f:
            with zipfile.ZipFile(f, "w", zipfile.ZIP_STORED) as archive:
                for number, arrays in enumerate(clips):
                    for name, array in arrays.items():
                        with archive.open(zipfile.ZipInfo(f"{number}/{name}.npy", _DATE), "w", force_zip64=True) as out:
                            np.lib.format.write_array(out, np.ascontiguousarray(array), allow_pickle=False)
                text = json.dumps({"num_clips": len(clips), "receipts": [dict(r) for r in receipts]})
                archive.writestr(zipfile.ZipInfo(RECEIPTS, _DATE), text)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(final.parent)
    return final


def staged(root: str | os.PathLike[str]) -> set[str]:
    """Ids of the batches that are staged whole; every file is read and checked, torn ones are removed."""
    found = set()
    for file in sorted((local_path(root) / FOLDER).glob("*.npz")):
        try:
            with zipfile.ZipFile(file) as archive:
                whole = archive.testzip() is None and RECEIPTS in archive.namelist()
        except FileNotFoundError:  # discarded since it was listed
            continue
        except _TORN:
            whole = False
        if whole:
            found.add(file.stem)
        else:
            file.unlink(missing_ok=True)
    return found


def load(root: str | os.PathLike[str], batch_id: str) -> tuple[list[dict[str, np.ndarray]], list[dict[str, Any]]]:
    """Arrays and receipts of a staged batch; raises StoreError, and removes the file, where it is torn."""
    file = _file(root, batch_id)
    try:
        with zipfile.ZipFile(file) as archive:
            notes = json.loads(archive.read(RECEIPTS))
            clips: list[dict[str, np.ndarray]] = [{} for _ in range(notes["num_clips"])]
            for member in archive.namelist():
                if member == RECEIPTS:
                    continue
                number, name = member.removesuffix(".npy").split("/")
                with archive.open(member) as f:
                    clips[int(number)][name] = np.lib.format.read_array(f, allow_pickle=False)
                    if f.read(1):  # reading to the end makes zipfile compare the CRC
                        raise ValueError(f"{member} is longer than its array")
        return clips, notes["receipts"]
    except FileNotFoundError:
        raise StoreError(f"batch {batch_id} is not staged in {file.parent}") from None
    except _TORN as e:
        file.unlink(missing_ok=True)
        raise StoreError(f"staged batch {batch_id} is torn ({e}) and was removed; run it again") from e


def discard(root: str | os.PathLike[str], batch_ids: Iterable[str]) -> None:
    """Remove staged batches; those that are gone already are fine."""
    for batch_id in batch_ids:
        _file(root, batch_id).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames within a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _file(root: str | os.PathLike[str], batch_id: str) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", batch_id):
        raise StoreError(f'batch id "{batch_id}" must be letters, digits, "_", "-" and "."')
    return local_path(root) / FOLDER / f"{batch_id}.npz"
