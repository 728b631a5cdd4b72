"""The driver's two tables beside a store's zarr.json, manifest and ledger: read from disk, or rebuilt.

For a damaged ledger, the entries of finished clips follow from the store, and unfinished clips are tried again. A
damaged manifest is rebuilt from the corpora that it was made from: only they know which clips have their sound in
another file, and what is forged.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import store
from pipelines.corpora import manifest
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import Row
from pipelines.errors import UsageError
from pipelines.tables import ledger
from pipelines.tables.ledger import Entry
from store import StoreError

log = logging.getLogger(__name__)

MANIFEST = "manifest.parquet"


@dataclass(frozen=True)
class Tables:
    """Manifest rows in the order of the clips table, ledger entries by clip id, and whether any of it was rebuilt."""

    rows: list[Row]
    entries: dict[str, Entry]
    anew: bool


def read(reader: store.Reader, given: Sequence[Row]) -> Tables:
    """Both tables of a store; `given` are the rows of the requested corpora. Raises UsageError
    if the manifest is damaged and `given` lacks rows of it."""
    rows, rows_anew = _rows(reader, given)
    entries, entries_anew = _entries(reader)
    return Tables(rows, entries, rows_anew or entries_anew)


def _rows(reader: store.Reader, given: Sequence[Row]) -> tuple[list[Row], bool]:
    ids = reader.clips["id"].tolist()
    if not ids:
        return [], False
    why = "its clips are not those of the store"
    try:
        check(reader, MANIFEST)
        found = manifest.read(reader.place / MANIFEST)[: len(ids)]  # rows beyond the table are from a killed run
        if [row.id for row in found] == ids:
            return _with_splits(reader, found)
    except (StoreError, ManifestError, OSError) as error:
        why = str(error)
    by_id = {row.id: row for row in given}
    lost = [clip_id for clip_id in ids if clip_id not in by_id]
    if lost:
        raise UsageError(
            f"the manifest of {reader.path} is lost or damaged ({why}); to rebuild it, run precompute.py with --corpus for "
            f"all corpora of the store ({', '.join(reader.attrs.get('corpora', []))}): clip {lost[0]} is in none that was given"
        )
    log.warning("the manifest of the store was rebuilt from the corpora given (%s)", why)
    return _with_splits(reader, [by_id[clip_id] for clip_id in ids])[0], True


def _with_splits(reader: store.Reader, rows: list[Row]) -> tuple[list[Row], bool]:
    """The rows with the splits of the clips table, which a run that died may have set there only; whether any differs."""
    splits = reader.clips["split"].tolist()
    differs = [row.split for row in rows] != splits
    return [replace(row, split=split) for row, split in zip(rows, splits, strict=True)] if differs else rows, differs


def _entries(reader: store.Reader) -> tuple[dict[str, Entry], bool]:
    clips = reader.clips
    if not len(reader):
        return {}, False
    try:
        check(reader, ledger.FILE)
        found = ledger.read(reader.place)
    except (StoreError, OSError) as error:
        log.warning("the ledger of the store was rebuilt, and clips that had failed are tried again (%s)", error)
        found = {}
    ids, paths = clips["id"].tolist(), clips["path"].tolist()
    unknown = [i for i, done in enumerate(clips["done"].tolist()) if done and ids[i] not in found]
    found |= {ids[i]: Entry(ids[i], paths[i], "done") for i in unknown}
    return found, bool(unknown)


def check(reader: store.Reader, name: str) -> None:
    """Raises Damaged if the file differs from the inventory, FileNotFoundError if it does not exist."""
    reader.inventory.check(reader.place, name, (reader.place / name).read())
