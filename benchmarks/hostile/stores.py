"""Stores whose metadata, shards or files are wrong, or lead outside the store."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import google_crc32c

from benchmarks.hostile.values import Rng, changed, flipped, text_of


def sealed(data: bytes) -> bytes:
    """With its CRC-32C behind it."""
    return data + google_crc32c.value(data).to_bytes(4, "little")


def store(folder: Path, outside: Path, rng: Rng, template: Path) -> Path:
    path = folder / "s.zarr"
    shutil.copytree(template, path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    documents = [p for p in files if p.name == "zarr.json"]
    parts = [p for p in files if p.name != "zarr.json"]
    for _ in range(int(rng.integers(1, 3))):
        way = rng.random()
        chosen = documents[int(rng.integers(len(documents)))] if rng.random() < 0.8 else path / "zarr.json"
        part = parts[int(rng.integers(len(parts)))]
        if not chosen.is_file() or not part.is_file():
            continue
        if way < 0.4:
            chosen.write_text(text_of(changed(json.loads(chosen.read_text()), rng), rng))
        elif way < 0.5:
            _named_codec(chosen, rng, outside)
        elif way < 0.65:
            data = bytearray(part.read_bytes()[:-4])
            if data:
                at = int(rng.integers(0, min(24, len(data)))) if rng.random() < 0.7 else int(rng.integers(len(data)))
                data[at : at + 4] = int(
                    rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, len(data), int(rng.integers(2**32))])
                ).to_bytes(4, "little")
            part.write_bytes(sealed(bytes(data)))
        elif way < 0.75:
            _index(part, rng)
        elif way < 0.8:
            part.write_bytes(flipped(part.read_bytes() or b"x", rng))
        elif way < 0.85:
            os.truncate(part, int(rng.choice([0, 10, 2**33])))
        elif way < 0.97:
            _link(part if rng.random() < 0.5 else part.parent.parent, outside)
        else:
            part.unlink()
            os.mkfifo(part)
    return path


def _index(part: Path, rng: Rng) -> None:
    """Entries of a shard's index replaced, under a right checksum."""
    data = bytearray(part.read_bytes())
    entries = 16 * 20
    if len(data) < entries + 4:
        return
    index = bytearray(data[-entries - 4 : -4])
    for _ in range(int(rng.integers(1, 5))):
        at = 8 * int(rng.integers(len(index) // 8))
        index[at : at + 8] = int(rng.choice([0, 1, len(data), 2**40, 2**63, int(rng.integers(len(data)))])).to_bytes(
            8, "little"
        )
    part.write_bytes(bytes(data[: -entries - 4]) + sealed(bytes(index)))


def _link(part: Path, outside: Path) -> None:
    """A file or folder that was moved away, behind a link."""
    if not part.exists():
        return
    away = outside / f"moved-{part.name}-{len(os.listdir(outside))}"
    shutil.move(part, away)
    part.symlink_to(away)


def _named_codec(path: Path, rng: Rng, outside: Path) -> None:
    """An array that asks for another codec, or whose keys lead elsewhere."""
    document = json.loads(path.read_text())
    if document.get("node_type") != "array":
        return
    names = (
        "numcodecs.pickle",
        "numcodecs.json2",
        "numcodecs.msgpack2",
        "vlen-bytes",
        "numcodecs.lzma",
        "gzip",
        "transpose",
        "numcodecs.zlib",
    )
    if rng.random() < 0.5:
        document["codecs"] = [
            {"name": names[int(rng.integers(len(names)))], "configuration": {}},
            *document["codecs"][1:],
        ]
    else:
        ways = ("/../../../outside/", "/../", f"/{outside}/", "//", "", 5, None)
        document["chunk_key_encoding"]["configuration"] = {"separator": ways[int(rng.integers(len(ways)))]}
    path.write_text(json.dumps(document))
