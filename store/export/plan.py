"""What an export holds and in which files, fixed before the first is written: a function of the store and the request.

Left out are paths, commands and places of weights, which belong to the machine that made the store, and clips that are
not done.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

import concord
from store import layout
from store.arrays.inventory import MARK, canonical, digest
from store.layout import SPLITS, StoreError
from store.reader import Reader

KINDS = {"webdataset": "{split}-{number:06d}.tar", "datasets": "data/{split}-{number:05d}-of-{count:05d}.parquet"}
FORMAT, VERSION = "concord-av export", 1
NAME = re.compile(r"[A-Za-z0-9_]+")  # of an array, as part of a file's or a column's name
MOST_FRAMES = (2**31 - 1) // (layout.FRAME_ARRAYS["mouth"][1][0] ** 2)  # of a clip in a Parquet list: 2.5 hours

# Columns of clips/ that say something to others, with the type of their values.
_OF_ONE_MACHINE = ("path", "offset", "capacity", "done")
COLUMNS = {name: kind for name, (kind, _) in layout.CLIP_ARRAYS.items() if name not in _OF_ONE_MACHINE}
OWN = ("row", "words")  # of a clip's record, beside the columns


@dataclass(frozen=True)
class Request:
    """What was asked for: `arrays` None for all but those of a second face, `shard_bytes` of arrays before compression."""

    kind: str
    arrays: tuple[str, ...] | None = None
    shard_bytes: int = 512_000_000
    licence: str = ""
    attribution: str = ""


@dataclass(frozen=True)
class Shard:
    """One file: its name below the export's folder, the split, and its clips by row."""

    name: str
    split: str
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """An export: `about` is what it says of itself, the same whenever it is made; `left_out` counts clips not done."""

    kind: str
    arrays: tuple[str, ...]
    shards: tuple[Shard, ...]
    about: Mapping[str, Any]
    left_out: int


def plan(reader: Reader, request: Request) -> Plan:
    """The plan of an export. Raises StoreError for a store that cannot be exported as requested."""
    if reader.attrs.get(MARK) and not reader.inventory.complete:
        raise StoreError(
            f"{reader.path} is not closed: a run writes to it, or was cut off; run precompute.py on it once more, then export"
        )
    usual = (name for name in reader.names if name not in layout.SECOND_ARRAYS)
    arrays = tuple(usual) if request.arrays is None else request.arrays
    for name in arrays:
        reader.array(name)
        if not NAME.fullmatch(name) or name in {*COLUMNS, *OWN}:
            raise StoreError(f"the array {name!r} cannot be exported under its name; choose others with --arrays")
    rows = np.flatnonzero(reader.clips["done"] == 1)
    if not len(rows):
        raise StoreError(f"{reader.path} has no clip that is done, so there is nothing to export")
    shards = _shards(reader, rows[np.argsort(reader.clips["offset"][rows], kind="stable")], arrays, request)
    about = {
        "format": FORMAT,
        "version": VERSION,
        "kind": request.kind,
        "made_by": f"concord-av {concord.__version__}",
        "store": identity(reader),
        "arrays": {name: _kind_of(reader, name) for name in arrays},
        "clips": len(rows),
        "frames": int(reader.clips["length"][rows].sum()),
        "licence": request.licence,
        "attribution": request.attribution,
        "plan": digest(canonical([asdict(shard) for shard in shards])),
    }
    return Plan(request.kind, arrays, shards, about, len(reader) - len(rows))


def _shards(reader: Reader, rows: np.ndarray, arrays: Sequence[str], request: Request) -> tuple[Shard, ...]:
    frame_bytes = bytes_of(reader, arrays)
    parts: dict[str, list[list[int]]] = {split: [] for split in SPLITS}
    room = dict.fromkeys(SPLITS, 0)
    for row in rows.tolist():
        split, frames = str(reader.clips["split"][row]) or SPLITS[0], int(reader.clips["length"][row])
        if split not in parts:
            raise StoreError(f"clip {reader.clips['id'][row]}: unknown split {split[:40]!a}; use {', '.join(SPLITS)}")
        if request.kind == "datasets" and frames > MOST_FRAMES:
            raise StoreError(
                f"clip {reader.clips['id'][row]} has {frames} frames, and a Parquet list holds the pictures of {MOST_FRAMES}: "
                "take --format webdataset"
            )
        if frames * frame_bytes > room[split]:
            parts[split].append([])
            room[split] = request.shard_bytes
        parts[split][-1].append(row)
        room[split] -= frames * frame_bytes
    name = KINDS[request.kind]
    return tuple(
        Shard(name.format(split=split, number=number, count=len(found)), split, tuple(part))
        for split, found in parts.items()
        for number, part in enumerate(found)
    )


def _kind_of(reader: Reader, name: str) -> str:
    array = reader.array(name)
    return f"{array.dtype} [{', '.join(map(str, ('frames', *array.shape[1:])))}]"


def bytes_of(reader: Reader, arrays: Sequence[str]) -> int:
    """Bytes of one frame in these arrays."""
    found = [reader.array(name) for name in arrays]
    return sum(int(np.prod(array.shape[1:])) * array.dtype.itemsize for array in found)


def identity(reader: Reader) -> dict[str, Any]:
    """What a store is, for others: its name, corpora, teachers, the kind of its fit, and a hash of all it holds."""
    attrs, inventory = reader.attrs, reader.inventory
    held: Any = [dict(inventory.files), dict(inventory.shards)]
    if not inventory.complete:  # of an earlier release
        held = {name: column.tolist() for name, column in reader.clips.items() if column.dtype.kind != "f"}
    teachers = {
        side: {"name": public_name(str(one.get("name", ""))), "sha256": one.get("sha256"), "dim": one.get("dim")}
        for side, one in (attrs.get("teachers") or {}).items()
        if one
    }
    return {
        "name": reader.place.name,
        "sha256": digest(canonical([dict(attrs), held])),
        "version": attrs["version"],
        "fps": layout.FPS,
        "sample_rate": layout.SAMPLE_RATE,
        "created_by": attrs.get("created_by", ""),
        "corpora": attrs.get("corpora") or sorted({str(name) for name in reader.clips["corpus"]} - {""}),
        "teachers": teachers,
        "similarity": (attrs.get("similarity") or {}).get("kind"),
    }


def public_name(teacher: str) -> str:
    """A teacher's name without the folder of its weights: avhubert:/data/large.pt@12 is avhubert:large.pt@12."""
    kind, separator, argument = teacher.partition(":")
    return kind + separator + argument.rpartition("/")[2]


def record(reader: Reader, row: int) -> dict[str, Any]:
    """A clip as others get it: its `row`, its COLUMNS, `identities` as a list, and `words` where the store has transcripts."""
    clip = reader[row]
    found = {"row": row, **{name: getattr(clip, name) for name in COLUMNS}, "identities": list(clip.identities)}
    if reader.has_words:
        found["words"] = reader.words(row)
    return found
