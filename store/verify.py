"""Whether a store is whole: every file, every chunk, every row of every clip that is done.

Each chunk is read once and its checksum and decoded size are checked; rows of a clip that is done must be marked as in use, and
embeddings, projections and soft labels must be numbers. Every other file is compared with the inventory, and ledger, manifest
and gathered metadata with the rest of the store.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rich.progress import Progress

from concord.plain_json import parse_dict
from concord.text import plain
from store import layout
from store.arrays import inventory
from store.arrays.nodes import consolidated, read_document
from store.arrays.shards import Damage
from store.layout import StoreError
from store.reader import Reader

Report = Callable[[int, int, str, str], None]  # first and last row of frames/ (exclusive), array, reason


@dataclass(frozen=True)
class Fault:
    """Damage in an array, group or file; `clip` is the id of the clip that it concerns, empty where it is not about one."""

    clip: str
    array: str
    reason: str


def verify(reader: Reader, progress: Progress | None = None) -> list[Fault]:
    """All damage in a store; an empty list means none."""
    found: list[Fault] = []
    done = np.flatnonzero(reader.clips["done"] == 1)
    start = reader.clips["offset"][done]
    stop = start + reader.clips["length"][done]

    def report(bad_start: int, bad_stop: int, array: str, reason: str) -> None:
        for k in np.flatnonzero((start < bad_stop) & (stop > bad_start)):
            fault = Fault(str(reader.clips["id"][done[k]]), array, reason)
            if fault not in found:
                found.append(fault)

    outside = (start < 0) | (reader.clips["length"][done] > reader.clips["capacity"][done]) | (stop > reader.num_rows)
    for i in done[outside]:
        found.append(Fault(str(reader.clips["id"][i]), "clips/offset", "its rows are not all in frames/"))
    is_fitted = reader.inventory.complete and bool((reader.attrs.get("similarity") or {}).get("complete"))
    numbers = {*layout.EMBEDDINGS, *(layout.LEARNED_ARRAYS if is_fitted else ())}
    start, stop, done = start[~outside], stop[~outside], done[~outside]
    for name in reader.names:
        array = reader.array(name)
        used = np.zeros(-(-array.shape[0] // array.chunk_rows), bool)
        for a, b in zip(start // array.chunk_rows, -(-stop // array.chunk_rows), strict=True):
            used[a:b] = True
        chunks = np.flatnonzero(used).tolist()
        task = progress.add_task(plain(f"frames/{name}"), total=len(chunks)) if progress else None
        for k in chunks:
            first = k * array.chunk_rows
            try:
                rows = array.read(first, first + array.chunk_rows)
            except Damage as e:
                report(first, first + array.chunk_rows, f"frames/{name}", str(e))
            else:
                if name == "flags":
                    _check_in_use(rows, first, start, stop, report)
                if name in numbers:
                    _check_numbers(name, rows, first, start, stop, report)
            if progress and task is not None:
                progress.advance(task)
    found += _small_files(reader)
    damaged = {fault.array.partition("/")[0] for fault in found}

    def words() -> object:
        return reader.words_table if reader.has_words else None

    def fit() -> object:
        return reader.fit

    for name, read in {"fit": fit, "words": words}.items():
        try:
            read()
        except StoreError as e:
            if name not in damaged:
                found.append(Fault("", name, str(e)))
    return found


def _small_files(reader: Reader) -> list[Fault]:
    """What is wrong with files that are no shards: by the inventory, and by what ledger, manifest and root say of the rest."""
    root = reader.place
    faults = {inventory.part(key): text for key, text in inventory.damage(root, reader.inventory).items()}
    for name in inventory.TABLES:
        if name not in faults and name in reader.inventory.files and (text := _table_fault(reader, name)):
            faults[name] = text
    document = read_document(root)
    if "consolidated_metadata" in document and not faults:
        again = parse_dict(consolidated(root))
        if again["consolidated_metadata"] != document["consolidated_metadata"]:
            faults["zarr.json"] = (
                f"{root}/zarr.json: the metadata that it gathers is not that of the arrays, so zarr.open reads them wrongly; "
                "run precompute.py on the store again: that gathers it again"
            )
    return [Fault("", name, text) for name, text in faults.items()]


def _table_fault(reader: Reader, name: str) -> str:
    """What is wrong with ledger or manifest, "" where its ids are those of the clips."""
    import pandas as pd

    try:
        data = io.BytesIO((reader.place / name).read())
        ids = pd.read_parquet(data, columns=["id"], page_checksum_verification=True)["id"].tolist()
    except (OSError, ValueError, KeyError) as e:
        why = (str(e) or type(e).__name__).splitlines()[0]
        return f"{reader.place / name} cannot be read ({why}); {inventory.remedy(name)}"
    if ids != reader.clips["id"].tolist():
        return f"{reader.place / name} is not of the clips that the store has; {inventory.remedy(name)}"
    return ""


def _check_in_use(rows: np.ndarray, first: int, start: np.ndarray, stop: np.ndarray, report: Report) -> None:
    """Rows of a done clip must carry the flag that a writer sets on rows it filled."""
    blank = np.flatnonzero(rows & layout.IN_USE == 0) + first
    if len(blank):
        for a, b in zip(start, stop, strict=True):
            hit = blank[(blank >= a) & (blank < b)]
            if len(hit):
                report(int(hit[0]), int(hit[0]) + 1, "frames/flags", "rows of the clip are not marked as in use")


def _check_numbers(
    name: str, rows: np.ndarray, first: int, start: np.ndarray, stop: np.ndarray, report: Report
) -> None:
    """Rows of a done clip are finite, and its soft labels in [0, 1], once the store has a fit."""
    good = np.isfinite(rows) if name != "similarity" else (rows >= 0) & (rows <= 1)
    bad = np.flatnonzero(~good.reshape(len(rows), -1).all(axis=1)) + first
    for a, b in zip(start, stop, strict=True) if len(bad) else ():
        hit = bad[(bad >= a) & (bad < b)]
        if len(hit):
            reason = f"row {int(hit[0] - a)} of the clip does not hold a number{' in [0, 1]' if name == 'similarity' else ''}"
            report(
                int(hit[0]),
                int(hit[0]) + 1,
                f"frames/{name}",
                f"{reason}; precompute.py --refit writes the labels again",
            )
