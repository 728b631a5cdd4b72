"""How the arrays of a store are divided and coded, and how their rows are written.

Codecs, measured on 6,000 real frames in chunks of 25 rows: pictures zstd 9 (7 % smaller than zstd 3 and 9 % faster to
decode; packing costs 0.18 ms a frame); sound blosc zstd with bitshuffle (1.52 : 1, plain zstd 1.14); floats blosc zstd
with byte shuffle (lips 1.40 : 1, plain zstd 1.08), but projections, which every window reads, use blosc lz4: 64 bytes
per row instead of 59, in a quarter of the time. Every chunk, including inner ones, has a CRC-32C and is stored even if
it holds only fill values, so that a missing chunk is damage and never a row of zeros.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from concord import plain_json
from concord.text import spelled
from store import layout
from store.arrays import attributes, metadata
from store.arrays.nodes import buffer, encoded, read_document
from store.layout import StoreError
from store.place import Place

EVERY_CHUNK: Any = {"write_empty_chunks": True}


def _compressors(name: str, dtype: str, row: tuple[int, ...]) -> list[Any]:
    if dtype == "u1" and len(row) > 1:  # pictures
        return [ZstdCodec(level=9), Crc32cCodec()]
    cname: Any = "lz4" if name in layout.PROJECTIONS else "zstd"
    shuffle: Any = "bitshuffle" if dtype == "i2" or cname == "lz4" else "shuffle"
    size = np.dtype(dtype).itemsize
    return [BloscCodec(cname=cname, clevel=5, shuffle=shuffle, typesize=size), Crc32cCodec()]


def create_frames(
    group: zarr.Group, name: str, dtype: str, row: tuple[int, ...], rows: int, cut: attributes.Layout
) -> None:
    """An array of `frames/`, cut along its first axis into shards and those into chunks."""
    group.create_array(
        name,
        shape=(rows, *row),
        dtype=dtype,
        chunks=(cut["chunk_rows"], *row),
        shards=(cut["shard_rows"], *row),
        compressors=_compressors(name, dtype, row),
        fill_value=layout.fill_value(dtype),
        dimension_names=("frame", *layout.AXES.get(name, tuple(f"{name}_{k}" for k in range(len(row))))),
    )


def create_column(group: zarr.Group, name: str, dtype: str, unknown: Any, rows: int, axis: str) -> zarr.Array[Any]:
    """A column of `clips/` or `words/`: one dimension, `layout.CLIP_CHUNK` rows a file."""
    return group.create_array(
        name,
        shape=(rows,),
        dtype=dtype,
        chunks=(layout.CLIP_CHUNK,),
        compressors=[ZstdCodec(), Crc32cCodec()],
        fill_value=unknown,
        dimension_names=(axis,),
        config=EVERY_CHUNK,
    )


def create_small(group: zarr.Group, name: str, values: np.ndarray) -> None:
    """An array in one chunk, for `fit/`. Its dimensions have names of its own, since xarray opens no array without them and
    none of another length under the same name, in the groups above either."""
    own = ".".join(filter(None, (*group.path.split("/"), name)))
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=tuple(max(1, n) for n in values.shape),
        compressors=[ZstdCodec(), Crc32cCodec()],
        dimension_names=[f"{own}.{k}" for k in range(values.ndim)],
        config=EVERY_CHUNK,
    )
    array[...] = values


def encoded_shard(array: zarr.Array[Any], data: np.ndarray) -> bytes:
    """The file's bytes of one shard of `array` with `data`.

    Zarr encodes it in memory. In place, it would read the old shard first, which takes time and fails if that shard is
    damaged, which may be the reason for replacing it.
    """
    document = {**array.metadata.to_dict(), "shape": data.shape}
    files: dict[str, Any] = {"zarr.json": buffer(json.dumps(document).encode())}
    alone = zarr.open_array(zarr.storage.MemoryStore(files), mode="r+", zarr_format=3).with_config(EVERY_CHUNK)
    alone[...] = data
    key = alone.metadata.encode_chunk_key((0,) * data.ndim)
    return bytes(files[key].to_bytes())


def write_column(where: Place, first: int, values: np.ndarray, rows: int | None = None) -> None:
    """Write a column's rows starting at `first`; with `rows` it has that length afterwards. Chunks first, then the
    length.

    A partly written chunk is read first; StoreError if it is missing or damaged.
    """
    document = read_document(where)
    try:
        meta = metadata.parse(document)  # Zarr would look codecs up by name, some of which run code
    except ValueError as e:
        raise StoreError(f"{where}: the array's metadata cannot be read: {e}") from e
    (had,), (chunk,) = meta.shape, meta.file_shape
    stop, rows = first + len(values), had if rows is None else rows
    document["shape"] = [max(rows, stop)]
    files: dict[str, Any] = {"zarr.json": buffer(encoded(document))}
    touched = [f"c/{k}" for k in range(first // chunk, -(-stop // chunk))]
    for k, key in enumerate(touched, first // chunk):
        kept = min(rows, had, (k + 1) * chunk)  # the chunk's rows below this are in use
        if k * chunk < min(first, kept) or stop < kept:
            try:
                files[key] = buffer((where / key).read())
            except FileNotFoundError:
                raise StoreError(f"{where / key} is missing: {where} is damaged; restore it from a copy") from None
    array = zarr.open_array(zarr.storage.MemoryStore(files), mode="r+", zarr_format=3).with_config(EVERY_CHUNK)
    try:
        array[first:stop] = values
    except (OSError, ValueError, RuntimeError, TypeError) as e:
        raise StoreError(f"{where} is damaged ({e}); restore it from a copy") from e
    for key in touched:
        (where / key).write(files[key].to_bytes())
    if rows != had:
        (where / "zarr.json").write(encoded({**document, "shape": [rows]}))


def resize(where: Place, rows: int) -> None:
    """Set the number of rows of an array of `frames/`; its shards are not changed."""
    document = read_document(where)
    (where / "zarr.json").write(encoded({**document, "shape": [rows, *document["shape"][1:]]}))


def as_column(values: Sequence[Any] | np.ndarray, dtype: str) -> np.ndarray:
    """Values of a table's column; lists in a string column become JSON."""
    if dtype == "string":
        texts = [v if isinstance(v, str) else json.dumps(list(v), ensure_ascii=False) for v in values]
        return np.array([spelled(v) for v in texts], dtype=object)
    return np.asarray(values).astype(dtype)


def short_dtype(dtype: np.dtype) -> str:
    """The layout's spelling of a dtype: u1, i2, f2."""
    return f"{dtype.kind}{dtype.itemsize}"


def fitting(name: str, data: np.ndarray, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Rows of frames/`name` in their stored type. Floats may be wider; raises StoreError for a value that becomes
    infinite, for another shape and for any other dtype."""
    if data.shape != shape:
        raise StoreError(f"frames/{name}: a shard is {list(shape)}, not {list(data.shape)}")
    if data.dtype == dtype:
        return data
    if not (data.dtype.kind == "f" and dtype.kind == "f"):
        raise StoreError(f"frames/{name} is {dtype}, not {data.dtype}")
    with np.errstate(over="ignore"):
        cast = data.astype(dtype)
    lost = np.isinf(cast) & np.isfinite(data)
    if lost.any():
        row = int(np.argwhere(lost)[0][0])
        raise StoreError(f"frames/{name}: row {row} of the shard holds {data[lost][0]:g}, too large for {dtype}")
    return cast


def opened(where: Place) -> zarr.Array[Any]:
    """An array for Zarr's own metadata and keys; raises StoreError for one that this project's writers do not write."""
    try:  # zarr looks codecs up by name, some of which run code
        metadata.parse(plain_json.parse((where / "zarr.json").read()))
    except (OSError, ValueError) as e:
        raise StoreError(f"{where}: the array's metadata cannot be read: {e}") from e
    return zarr.open_array(where.zarr(), mode="r", zarr_format=3).with_config(EVERY_CHUNK)
