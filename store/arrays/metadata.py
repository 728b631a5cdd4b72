"""Parses an array's `zarr.json` in the form that this project writes; anything else is refused before a byte of data is
read.

A store may come from anyone. Zarr metadata can name codecs that run code (numcodecs' pickle), keys that lead elsewhere
("/../../x/" between numbers) and shapes that fill the memory. So nothing is guessed or looked up by name, and the
memory for a chunk is checked before it is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from concord.plain_json import is_count

DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
)
AXES = 8
CHUNK_BYTES = 64 << 20  # decoded; 25 pictures of 96 x 96 have 230 kB
CHUNKS_A_SHARD = 1 << 16  # 4,200 rows of a shard are 168 chunks


@dataclass(frozen=True)
class Metadata:
    """`shape`; `dtype` (None = strings); `file_shape` of the rows in one file; `chunk_shape` of the rows that are
    compressed together, the same except for shards; `codec` "" (plain), "zstd" or "blosc"; whether chunks, and a
    shard's index, carry a CRC-32C."""

    shape: tuple[int, ...]
    dtype: np.dtype | None
    file_shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    codec: str
    crc: bool
    separator: str
    sharded: bool = False
    index_first: bool = False
    index_crc: bool = False

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk; 0 for strings, whose chunks have any size."""
        return math.prod(self.chunk_shape) * self.dtype.itemsize if self.dtype else 0

    def key(self, index: Sequence[int]) -> str:
        """The key, below the array's folder, of the file at that position in the grid."""
        return self.separator.join(["c", *map(str, index)])


def parse(document: Any) -> Metadata:
    """Raises ValueError, which says what this project's writers do not write."""
    try:
        return _parse(document)
    except (KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"it is not the metadata of an array ({type(e).__name__}: {e})") from e


def _parse(document: Any) -> Metadata:
    if document["zarr_format"] != 3 or document["node_type"] != "array" or document.get("storage_transformers"):
        raise ValueError("it is not a plain array of Zarr v3")
    shape = _shape(document["shape"], "shape", 0)
    kind = document["data_type"]
    if kind != "string" and kind not in DTYPES:
        raise ValueError(f"its data type is {_short(kind)}, expected string or one of {', '.join(DTYPES)}")
    grid, keys = document["chunk_grid"], document["chunk_key_encoding"]
    if grid["name"] != "regular":
        raise ValueError(f"its chunks are cut by {_short(grid['name'])}, expected a regular grid")
    file_shape = _shape(grid["configuration"]["chunk_shape"], "chunk shape", 1)
    separator = keys.get("configuration", {}).get("separator", "/")
    if keys["name"] != "default" or separator not in ("/", "."):
        raise ValueError(f'the keys of its chunks are joined by {_short(separator)}, expected "/" or "."')
    codecs = document["codecs"]
    sharded = len(codecs) == 1 and codecs[0]["name"] == "sharding_indexed"
    chunk_shape, index_first, index_crc = file_shape, False, False
    if sharded:
        config = codecs[0]["configuration"]
        chunk_shape, codecs = _shape(config["chunk_shape"], "chunk shape", 1), config["codecs"]
        index, location = _names(config["index_codecs"]), config.get("index_location", "end")
        if index not in (["bytes"], ["bytes", "crc32c"]) or location not in ("start", "end"):
            raise ValueError(f"the index of its shards is coded by {', '.join(index)}, expected bytes, crc32c")
        index_first, index_crc = location == "start", len(index) == 2
    names = _names(codecs)
    crc = names[-1] == "crc32c"
    first, *middle = names[:-1] if crc else names
    if first != ("vlen-utf8" if kind == "string" else "bytes") or middle not in ([], ["zstd"], ["blosc"]):
        raise ValueError(f"its chunks are coded by {', '.join(names)}, which this release does not read")
    dtype = None if kind == "string" else np.dtype(kind).newbyteorder("<")
    meta = Metadata(
        shape, dtype, file_shape, chunk_shape, "".join(middle), crc, separator, sharded, index_first, index_crc
    )
    if not len(shape) == len(file_shape) == len(chunk_shape):
        raise ValueError("its shape and its chunks have different numbers of axes")
    if max(meta.chunk_bytes, math.prod(chunk_shape)) > CHUNK_BYTES:
        raise ValueError(f"a chunk of {list(chunk_shape)} {kind} has more than {CHUNK_BYTES} bytes")
    if any(n % c for n, c in zip(file_shape, chunk_shape, strict=True)):
        raise ValueError(f"a shard of {list(file_shape)} is not a whole number of chunks of {list(chunk_shape)}")
    if math.prod(file_shape) // math.prod(chunk_shape) > CHUNKS_A_SHARD:
        raise ValueError(f"a shard of {list(file_shape)} has more than {CHUNKS_A_SHARD} chunks")
    return meta


def _names(codecs: Any) -> list[str]:
    """Names of codecs in order, all of which must be strings and little-endian."""
    if not isinstance(codecs, list) or not codecs or not all(isinstance(c["name"], str) for c in codecs):
        raise ValueError("it names no codecs")
    if any(c.get("configuration", {}).get("endian", "little") != "little" for c in codecs):
        raise ValueError("its numbers are big-endian")
    return [c["name"] for c in codecs]


def _shape(value: Any, what: str, least: int) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > AXES or not all(is_count(n, least) for n in value):
        raise ValueError(f"its {what} is {_short(value)}, expected at most {AXES} whole numbers, each at least {least}")
    return tuple(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]} ..."
