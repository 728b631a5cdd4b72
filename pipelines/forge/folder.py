"""The folder of a run: recognised by its forge.json, refused if it holds anything else, and written piece by piece.

A clip is written under another name and renamed when it is complete; what it is made of, and its size, is noted before that.
So a clip that has its name and size is finished and is never written again, and a run that was killed continues.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from concord import files
from pipelines.errors import UsageError
from pipelines.forge.plan import REAL, SUFFIX, Request, folders, place
from pipelines.tables import ledger
from store.place.bounds import store_of

MARK = "forge.json"
FORMAT = "concord-av forge"
VERSION = 1
MANIFEST = "manifest.csv"
LOCK = ".lock"
SHEETS, NOTES = "sheets", "notes"
NOTED = {
    "audio_fake": int, "video_fake": int, "audio_segments": list, "video_segments": list, "donor": str,
    "donor_people": list, "frames": int, "face": list, "seed": int, "note": str,
}  # fmt: skip
SIZE = "bytes"  # of the clip, also in its note; those of earlier releases do not have it


def prepare(root: Path, request: Request) -> FileLock:
    """Make the folder, or check that it is that of an earlier, equal run. Raises UsageError; then nothing was changed.

    The lock is held until it is released or the process ends: another run would sweep away what this one is writing.
    """
    wanted = {"format": FORMAT, "version": VERSION, "seed": request.seed, "sources": request.digest()}
    _check(root, request, wanted)
    files.make_folder(root)
    lock = FileLock(root / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UsageError(f"another run is writing to --out {root}; wait for it, or give another folder") from None
    _check(root, request, wanted)  # another run may have ended meanwhile
    if not (root / MARK).exists():
        files.write(root / MARK, _json(wanted))
    for name in (SHEETS, *folders()):
        files.make_folder(root / name)
    for name in folders():
        files.make_folder(root / NOTES / name)
    for folder in (root, root / SHEETS, *(top / name for top in (root, root / NOTES) for name in folders())):
        files.sweep(folder)
    return lock


def _check(root: Path, request: Request, wanted: Mapping[str, Any]) -> None:
    """Raises UsageError unless the folder is missing, empty, or that of an earlier, equal run and of nothing else."""
    if root.is_symlink() or (root.exists() and not root.is_dir()):
        raise UsageError(f"--out {root} is not a folder; give a new one")
    if inside := store_of(root):
        raise UsageError(f"--out {root} lies in the store {inside}; give a folder outside it")
    there = [path for path in sorted(root.iterdir()) if path.name != LOCK] if root.exists() else []
    if not there:
        return
    if not files.is_plain(root / MARK):
        raise UsageError(f"--out {root} holds {there[0].name}, which is not of this command; give a new folder")
    found = _read(root / MARK)
    if found.get("format") != FORMAT:
        raise UsageError(f"--out {root} has a {MARK} of something else; give a new folder")
    if found != wanted:
        raise UsageError(
            f"--out {root} was made from other clips, with another seed or by another version (its seed is "
            f"{found.get('seed')}); give a new folder, or the same options"
        )
    _check_foreign(root, request)


def note(root: Path, method: str, name: str) -> Path:
    """Where the note of an output is: what it was made of."""
    return root / NOTES / method / f"{name}.json"


def points(root: Path, name: str) -> Path:
    """Where the window of a real clip is kept."""
    return root / NOTES / "real" / f"{name}.npz"


def write_note(path: Path, values: Mapping[str, Any]) -> None:
    """Write the note of an output."""
    files.write(path, _json(values))


def read_note(path: Path) -> dict[str, Any] | None:
    """The note of an output; None if there is none, or it is damaged."""
    found = _read(path)
    return found if all(isinstance(found.get(name), kind) for name, kind in NOTED.items()) else None


def is_finished(root: Path, method: str, name: str) -> bool:
    """Whether an output is there as it was written, with what must be known of it; any other is made again."""
    path, about = place(root, method, name), read_note(note(root, method, name))
    if about is None or not files.is_plain(path):
        return False
    size = path.stat().st_size
    # The index of a .npz file is at its end, so one that was cut is none.
    return 0 < size == about.get(SIZE, size) and (method != REAL or zipfile.is_zipfile(points(root, name)))


def _check_foreign(root: Path, request: Request) -> None:
    """Raises UsageError for the first file, folder or link that no such run makes."""
    names = {source.name for source in request.sources}
    allowed = {MARK, LOCK, MANIFEST, ledger.FILE, *(f"{SHEETS}/{name}.png" for name in folders())}
    allowed |= {f"{folder}/{name}{SUFFIX}" for folder in folders() for name in names}
    allowed |= {f"{NOTES}/{folder}/{name}.json" for folder in folders() for name in names}
    allowed |= {f"{NOTES}/real/{name}.npz" for name in names}
    within = {SHEETS, NOTES, *folders(), *(f"{NOTES}/{name}" for name in folders())}
    for top, below, inside in os.walk(root):
        for name in sorted([*below, *inside]):
            path = Path(top) / name
            where = path.relative_to(root).as_posix()
            known = where in within if path.is_dir() else where in allowed or files.is_unfinished(name)
            if not known or path.is_symlink():
                raise UsageError(
                    f"--out {root} holds {where}, which is not of this command; move it away, or give a new folder"
                )


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, ensure_ascii=True) + "\n").encode()


def _read(path: Path) -> dict[str, Any]:
    """An object of a JSON file; empty if there is none."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
