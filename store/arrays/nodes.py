"""The Zarr nodes of a store: root attributes, how arrays are made, and groups that are built and read in memory.

Everything passes through memory as {key: bytes}: Zarr codes and decodes there, and only `store.place` touches the disk. So each
file is there whole or not at all, flushed before the next, and what goes over a network is whole files, many at a time.

Codecs, measured on 6,000 real frames in chunks of 25 rows: pictures zstd 9 (7 % smaller than zstd 3 and 9 % quicker to decode;
packing costs 0.18 ms a frame); sound blosc zstd with bitshuffle (1.52 : 1, plain zstd 1.14); floats blosc zstd with byte
shuffle (lips 1.40 : 1, plain zstd 1.08), but projections, which every window reads, blosc lz4: 64 bytes a row instead of 59 for
a quarter of the time. Every chunk, inner ones too, carries a CRC-32C and is stored even when it holds fill values alone, so
that a chunk that is not there is damage and never a row of zeros.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from concord import plain_json
from concord.text import spelled
from store import layout
from store.arrays import attributes, metadata
from store.layout import CREATION, StoreError
from store.place import Place
from store.place.bounds import INVENTORY, is_store

EVERY_CHUNK: Any = {"write_empty_chunks": True}


def root_attrs(root: Place) -> dict[str, Any]:
    """Root attributes of a store; raises StoreError for a folder that is none, and for a version newer than ours."""
    attrs = read_document(root).get("attributes")
    if not isinstance(attrs, dict) or attrs.get("format") != layout.FORMAT:
        raise StoreError(f"{root} is no store of concord-av; precompute.py makes one")
    version = attrs.get("version")
    if not plain_json.is_count(version):
        raise StoreError(
            f"{root}: its version is {version!r}, expected a whole number; its zarr.json was changed by hand"
        )
    if version > layout.VERSION:
        raise StoreError(
            f"{root} was made by a newer concord-av (store version {version}, this one knows {layout.VERSION}): upgrade"
        )
    if wrong := attributes.wrong({"layout": None, **attrs}):
        raise StoreError(f"{root}: its attribute {wrong}; its zarr.json was changed by hand or is none of ours")
    return attrs


def array_names(group: Place) -> list[str]:
    """Names of the arrays in a group, as they are now, sorted."""
    names = group.names()
    return [name for name, there in zip(names, group.map(lambda n: is_node(group / n), names), strict=True) if there]


def is_node(where: Place) -> bool:
    """Whether a Zarr array or group is there."""
    return (where / "zarr.json").exists()


def build(fill: Callable[[zarr.Group], None], attributes: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    """A group that `fill` makes in memory, as {key: bytes}."""
    files: dict[str, Any] = {}
    fill(zarr.open_group(files, mode="w-", zarr_format=3, attributes=dict(attributes or {})))
    return {key: files[key].to_bytes() for key in sorted(files)}


def read_document(root: Place) -> dict[str, Any]:
    """The root's metadata document, whatever wrote it; raises StoreError where there is none."""
    try:
        return plain_json.parse_dict((root / "zarr.json").read())
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{root} is no store: it has no zarr.json; precompute.py makes one") from None
    except (OSError, ValueError) as e:
        raise StoreError(f"{root}/zarr.json cannot be read: {e}") from e


def write_document(root: Place, document: dict[str, Any]) -> None:
    """Replace the root's metadata document in one step."""
    (root / "zarr.json").write(_text(document))


def _compressors(name: str, dtype: str, row: tuple[int, ...]) -> list[Any]:
    if dtype == "u1" and len(row) > 1:  # pictures
        return [ZstdCodec(level=9), Crc32cCodec()]
    cname: Any = "lz4" if name in layout.PROJECTIONS else "zstd"
    shuffle: Any = "bitshuffle" if dtype == "i2" or cname == "lz4" else "shuffle"
    size = np.dtype(dtype).itemsize
    return [BloscCodec(cname=cname, clevel=5, shuffle=shuffle, typesize=size), Crc32cCodec()]


def create_frames(
    group: zarr.Group, name: str, dtype: str, row: tuple[int, ...], rows: int, chunk_rows: int, shard_rows: int
) -> None:
    """An array of `frames/`, cut along its first axis into shards and those into chunks."""
    group.create_array(
        name,
        shape=(rows, *row),
        dtype=dtype,
        chunks=(chunk_rows, *row),
        shards=(shard_rows, *row),
        compressors=_compressors(name, dtype, row),
        fill_value=layout.fill_value(dtype),
        dimension_names=("frame", *layout.AXES.get(name, tuple(f"{name}_{k}" for k in range(len(row))))),
    )


def create_column(group: zarr.Group, name: str, dtype: str, unknown: Any, rows: int, axis: str) -> zarr.Array:
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
    """An array in one chunk, for `fit/`."""
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        chunks=tuple(max(1, n) for n in values.shape),
        compressors=[ZstdCodec(), Crc32cCodec()],
        config=EVERY_CHUNK,
    )
    array[...] = values


def encoded_shard(array: zarr.Array, data: np.ndarray) -> bytes:
    """One shard of `array` that holds `data`, as its file has it.

    Zarr encodes it in memory. Told to write it in place, it would read the old shard first, which costs time, and fails where
    that one is damaged and is to be replaced for that very reason.
    """
    metadata = {**array.metadata.to_dict(), "shape": data.shape}
    document = zarr.core.buffer.cpu.Buffer.from_bytes(json.dumps(metadata).encode())
    files: dict[str, Any] = {"zarr.json": document}
    alone = zarr.open_array(zarr.storage.MemoryStore(files), mode="r+", zarr_format=3).with_config(EVERY_CHUNK)
    alone[...] = data
    return files[alone.metadata.encode_chunk_key((0,) * data.ndim)].to_bytes()


def write_column(where: Place, first: int, values: np.ndarray, rows: int | None = None) -> None:
    """Write a column's rows from `first` on; with `rows` it is that long afterwards. Chunks first, then the length.

    A chunk that is written in part is read before; StoreError where it is not there or is damaged.
    """
    document = read_document(where)
    try:
        meta = metadata.parse(document)  # Zarr would look codecs up by name, some of which run code
    except ValueError as e:
        raise StoreError(f"{where}: the array's metadata cannot be read: {e}") from e
    (had,), (chunk,) = meta.shape, meta.file_shape
    stop, rows = first + len(values), had if rows is None else rows
    document["shape"] = [max(rows, stop)]
    files: dict[str, Any] = {"zarr.json": _buffer(_text(document))}
    touched = [f"c/{k}" for k in range(first // chunk, -(-stop // chunk))]
    for k, key in enumerate(touched, first // chunk):
        kept = min(rows, had, (k + 1) * chunk)  # rows of the chunk that hold something are those below
        if k * chunk < min(first, kept) or stop < kept:
            try:
                files[key] = _buffer((where / key).read())
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
        (where / "zarr.json").write(_text({**document, "shape": [rows]}))


def resize(where: Place, rows: int) -> None:
    """Have an array of `frames/` that many rows long; its shards stay as they are."""
    document = read_document(where)
    (where / "zarr.json").write(_text({**document, "shape": [rows, *document["shape"][1:]]}))


def delete_node(where: Place) -> None:
    """Remove an array or a group with all below it, its own metadata first, so that a kill leaves none and not half of one.
    What is neither metadata nor a chunk stays, and so does a store that somebody put there."""
    (where / "zarr.json").delete()
    files = where.files()
    looked = {
        key.removesuffix(mark)
        for key in files
        for mark in (CREATION, INVENTORY, "clips/zarr.json")
        if key.endswith(mark)
    }
    stores = tuple(folder for folder in looked if folder.endswith("/") and is_store(where / folder.rstrip("/")))
    where.map(lambda key: (where / key).delete(), [k for k in files if is_of_node(k) and not k.startswith(stores)])
    where.prune()


def is_of_node(key: str) -> bool:
    """Whether a file with this key below a node is Zarr's: metadata, or a chunk as our arrays name theirs."""
    *folders, name = key.split("/")
    return name == "zarr.json" or name == "c" or ("c" in folders and name.isdecimal())


def consolidated(root: Place) -> bytes:
    """The root's metadata document with that of all nodes in it, so that `zarr.open` lists the store by one read."""
    keys = [key for key in root.files() if key.rpartition("/")[2] == "zarr.json"]
    files: Any = {
        key: _buffer(data) for key, data in zip(keys, root.map(lambda k: (root / k).read(), keys), strict=True)
    }
    with warnings.catch_warnings():  # consolidated metadata is an extension of Zarr v3, meant here
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(zarr.storage.MemoryStore(files), zarr_format=3)
    return files["zarr.json"].to_bytes()


def _buffer(data: bytes) -> Any:
    return zarr.core.buffer.cpu.Buffer.from_bytes(data)


def _text(document: Mapping[str, Any]) -> bytes:
    """A metadata document as Zarr itself writes it."""
    return json.dumps(document, indent=2, allow_nan=False).encode()


def as_column(values: Sequence[Any] | np.ndarray, dtype: str) -> np.ndarray:
    """Values of a table's column; lists in a string column become JSON."""
    if dtype == "string":
        texts = [v if isinstance(v, str) else json.dumps(list(v), ensure_ascii=False) for v in values]
        return np.array([spelled(v) for v in texts], dtype=object)
    return np.asarray(values).astype(dtype)


def short_dtype(dtype: np.dtype) -> str:
    """The layout's spelling of a dtype: u1, i2, f2."""
    return f"{dtype.kind}{dtype.itemsize}"


def attributes_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """A node's attributes as JSON holds them; raises StoreError for what it cannot hold."""
    try:
        return dict(plain_json.cleaned(values, spelled))
    except TypeError as e:
        raise StoreError(f"an attribute cannot be stored: {e}") from e
