"""The folder of an export: claimed first, filled shard by shard, closed last.

`export.json` is written before the first shard and again after each one, with its size and SHA-256, so that an export that
was stopped goes on where it was, what was damaged is written again, and a folder of anything else is refused. Each file
appears complete or not at all. The card is for people to complete: one that was changed is never written again.
"""

from __future__ import annotations

import hashlib
import json
import os
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
    """The folder of one plan; `done` is {name of a shard: {bytes, sha256, clips}}, `beside` the same of card and fit.

    `kept`: whether somebody changed the card, so that it stays.
    """

    folder: Path
    plan: Plan
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    beside: dict[str, dict[str, Any]] = field(default_factory=dict)
    complete: bool = False
    kept: bool = False

    @property
    def waiting(self) -> list[Shard]:
        """Shards that are not there yet, or were not as they were written."""
        return [shard for shard in self.plan.shards if shard.name not in self.done]

    def resume(self, note: Mapping[str, Any]) -> None:
        """Take over what an earlier run noted, where the files still have the bytes that it wrote: reads all of them."""
        names = {shard.name for shard in self.plan.shards}
        noted = {name: one for name, one in note["shards"].items() if name in names}
        self.done = {name: one for name, one in noted.items() if _is(self.folder / name, one)}
        beside = note.get("files")
        self.beside = dict(beside) if isinstance(beside, dict) else {}
        whole = FIT not in self.beside or _is(self.folder / FIT, self.beside[FIT])
        there = CARD in self.beside and os.path.lexists(self.folder / CARD)
        self.kept = there and not _is(self.folder / CARD, self.beside[CARD])
        self.complete = note.get("complete") is True and not self.waiting and whole and there

    def write(self, reader: Reader, shard: Shard) -> dict[str, Any]:
        """Write one shard; what `done` then has of it. Raises StoreError where a clip is damaged, OSError for a full disk."""
        path = self.folder / shard.name
        files.make_folder(path.parent)
        with files.replacing(path) as partial:
            WRITERS[self.plan.kind](partial, reader, shard.rows, self.plan.arrays, self.plan.about)
            found = self.done[shard.name] = {**_identity(partial), "clips": len(shard.rows)}
        self._note()
        return found

    def close(self, reader: Reader) -> None:
        """Write the fit, where there is one, and the card, unless somebody changed it, and note that all is there."""
        if (fit := reader.fit) is not None:
            note = {name: value for name, value in (reader.attrs.get("similarity") or {}).items() if name != "fit_from"}
            note["clip_frames"] = reader.fit_length
            fitfile.save(self.folder / FIT, fit, self.plan.about["store"]["teachers"], note)
            self.beside[FIT] = _identity(self.folder / FIT)
        path, text = self.folder / CARD, card.card(self.plan, fit is not None).encode()
        ours = {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()}
        self.kept = os.path.lexists(path) and not any(_is(path, one) for one in (ours, self.beside.get(CARD)))
        if not self.kept:
            files.write(path, text)
        self.beside[CARD] = ours
        self.complete = True
        self._note()

    def _note(self) -> None:
        done, beside = (dict(sorted(found.items())) for found in (self.done, self.beside))
        note = {**self.plan.about, "complete": self.complete, "shards": done, "files": beside}
        files.write(self.folder / NOTE, (json.dumps(note, indent=1, ensure_ascii=False) + "\n").encode())


def claim(folder: Path, plan: Plan) -> Export:
    """The export in `folder`, begun here or by an earlier run of the same plan.

    Raises StoreError, having changed nothing, for a folder that holds files and no such export, or lies in a store.
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
        export.resume(note)
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


def _identity(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file, as a note has them."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": sha256}


def _is(path: Path, noted: object) -> bool:
    """Whether a file is there with the bytes that were noted."""
    if not isinstance(noted, dict) or not files.is_plain(path) or path.stat().st_size != noted.get("bytes"):
        return False
    return bool(_identity(path)["sha256"] == noted.get("sha256"))


def _read(path: Path) -> dict[str, Any]:
    """The note of an export; raises StoreError where it is not one."""
    try:
        note: dict[str, Any] = plain_json.parse_exact(path.read_bytes(), MOST)
        if note["format"] != FORMAT or not isinstance(note["shards"], dict):
            raise ValueError("it is not the note of an export")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} cannot be read as the note of an export ({error}); choose another folder") from error
    return note
