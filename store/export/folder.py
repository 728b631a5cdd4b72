"""The folder of an export: claimed first, filled shard by shard, closed last.

`export.json` is written before the first shard and again after each one, with its size and SHA-256, so that an export that
was stopped goes on where it was, and a folder of anything else is refused. Each file appears complete or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from concord import files, plain_json
from store import output
from store.export import card, parquet, tar
from store.export.plan import FORMAT, Plan, Shard
from store.layout import StoreError
from store.reader import Reader
from store.similarity import fitfile

NOTE, CARD, FIT = "export.json", "README.md", "fit.npz"
MOST = 64 << 20  # bytes of a note: a hundred for each shard
WRITERS: Mapping[str, Callable[..., None]] = {"webdataset": tar.write, "datasets": parquet.write}


@dataclass
class Export:
    """The folder of one plan; `done` is {name of a shard: {bytes, sha256, clips}}."""

    folder: Path
    plan: Plan
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    complete: bool = False

    @property
    def waiting(self) -> list[Shard]:
        """Shards that are not there yet, or not as they were written."""
        return [shard for shard in self.plan.shards if not self._has(shard)]

    def _has(self, shard: Shard) -> bool:
        path = self.folder / shard.name
        return (
            shard.name in self.done and files.is_plain(path) and path.stat().st_size == self.done[shard.name]["bytes"]
        )

    def write(self, reader: Reader, shard: Shard) -> dict[str, Any]:
        """Write one shard; what `done` then has of it. Raises StoreError where a clip is damaged, OSError for a full disk."""
        path = self.folder / shard.name
        files.make_folder(path.parent)
        with files.replacing(path) as partial:
            WRITERS[self.plan.kind](partial, reader, shard.rows, self.plan.arrays, self.plan.about)
            with partial.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = partial.stat().st_size
        found = self.done[shard.name] = {"bytes": size, "sha256": sha256, "clips": len(shard.rows)}
        self._note()
        return found

    def close(self, reader: Reader) -> None:
        """Write the fit, where there is one, and the card, and say that all is there."""
        if (fit := reader.fit) is not None:
            note = {name: value for name, value in (reader.attrs.get("similarity") or {}).items() if name != "fit_from"}
            note["clip_frames"] = reader.fit_length
            fitfile.save(self.folder / FIT, fit, self.plan.about["store"]["teachers"], note)
        files.write(self.folder / CARD, card.card(self.plan, fit is not None).encode())
        self.complete = True
        self._note()

    def _note(self) -> None:
        note = {**self.plan.about, "complete": self.complete, "shards": dict(sorted(self.done.items()))}
        files.write(self.folder / NOTE, (json.dumps(note, indent=1, ensure_ascii=False) + "\n").encode())


def claim(folder: Path, plan: Plan) -> Export:
    """The export in `folder`, begun here or by an earlier run of the same plan.

    Raises StoreError, having changed nothing, for a folder that holds anything else or lies in a store.
    """
    output.check_folder(folder, "the export")
    there = sorted(p.name for p in folder.iterdir() if not files.is_unfinished(p.name)) if folder.exists() else []
    export = Export(folder, plan)
    if NOTE in there:
        note = _read(folder / NOTE)
        if {name: note.get(name) for name in plan.about} != plan.about:
            raise StoreError(
                f"{folder} has an export of another store, or one with other options; choose another folder, or remove that one"
            )
        export.done = {name: one for name, one in note["shards"].items() if isinstance(one, dict)}
        export.complete = note.get("complete") is True and not export.waiting and files.is_plain(folder / CARD)
    elif there:
        raise StoreError(
            f"{folder} is not empty ({there[0][:80]} ...) and holds no export of ours; choose a new folder"
        )
    files.make_folder(folder)
    for place in {folder, *((folder / shard.name).parent for shard in plan.shards)}:
        if place.is_dir():
            files.sweep(place)
    if NOTE not in there:
        export._note()
    return export


def _read(path: Path) -> dict[str, Any]:
    """The note of an export; raises StoreError where it is not one."""
    try:
        note: dict[str, Any] = plain_json.parse_exact(path.read_bytes(), MOST)
        if note["format"] != FORMAT or not isinstance(note["shards"], dict):
            raise ValueError("it is not the note of an export")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} cannot be read as the note of an export ({error}); choose another folder") from error
    return note
