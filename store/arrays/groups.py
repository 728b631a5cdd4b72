"""Small groups (`clips/`, `words/`, `fit/`) read into memory by this project's own decoder, because their metadata may
name any codec.

Zarr itself would look up codecs by name, some of which run code (numcodecs' pickle), and allocate the sizes in shapes
and chunk headers. Here an array has the form that this project's writers write (`store.arrays.metadata`), or it is an
error. The memory for a group is limited by its files: MOST_FREE bytes, or RATIO for each byte on the disk if that is
more.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numcodecs.vlen import VLenUTF8

from concord import plain_json
from concord.errors import ConcordError
from store.arrays import chunks, metadata
from store.arrays.metadata import Metadata
from store.arrays.nodes import is_of_node
from store.place import Place

MOST_FREE = 128 << 20  # bytes in memory that a group of any size on the disk may take
RATIO = 64  # bytes in memory for each byte on the disk, beyond that; a million clips take 30
TEXT_BYTES = 64  # that Python needs for a string, in addition to its characters
DEPTH = 8  # groups in groups; fit/calibration/CORPUS/WINDOW are three
META_BYTES = 1 << 20  # of one zarr.json


Read = Callable[[str, bytes], None]


def _any(*_: Any) -> None:
    """The default callback for files, which does nothing."""


class Broken(ConcordError, ValueError):
    """A group that is damaged or unknown: what is wrong and with which part, without the group's location."""


@dataclass(frozen=True)
class Array:
    """An array of a group, its files in memory; `read` decodes them."""

    name: str
    meta: Metadata
    files: Mapping[str, bytes]

    def read(self, length: int | None = None) -> np.ndarray:
        """The whole array, or its first `length` rows; strings as Python's. Raises Broken if a chunk is missing or
        damaged."""
        meta = self.meta
        shape = meta.shape if length is None else (min(length, meta.shape[0]), *meta.shape[1:])
        out = np.zeros(shape, object if meta.dtype is None else meta.dtype)
        for index in np.ndindex(*_grid(shape, meta.file_shape)):
            at = tuple(slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, meta.file_shape, shape, strict=True))
            inside = tuple(slice(0, part.stop - part.start) for part in at)
            out[at] = self._chunk(meta.key(index))[inside]
        return out

    def _chunk(self, key: str) -> np.ndarray:
        if key not in self.files:
            raise Broken(f"{self.name}/{key} is missing")
        try:
            data = chunks.checked(self.files[key], self.meta.crc)
            if self.meta.dtype is None:
                return self._texts(data).reshape(self.meta.file_shape)
            out = np.empty(self.meta.file_shape, self.meta.dtype)
            chunks.decode(self.meta.codec, data, out)
            return out
        except (ValueError, RuntimeError, IndexError) as e:
            raise Broken(f"{self.name}/{key} cannot be decoded: {e}") from e

    def _texts(self, data: memoryview) -> np.ndarray:
        size = _text_bytes(self.meta, data)
        plain = np.empty(size, "u1")
        chunks.decode(self.meta.codec, data, plain)
        rows = math.prod(self.meta.file_shape)
        said = int.from_bytes(plain[:4].tobytes(), "little")  # the decoder allocates this number
        if size < 4 + 4 * rows or said != rows:
            raise ValueError(f"it holds {said} texts in {size} bytes, expected {rows}")
        texts: np.ndarray = VLenUTF8().decode(plain)
        return texts


@dataclass(frozen=True)
class Group:
    """A group in memory: its attributes, and the groups and arrays in it by name."""

    attrs: dict[str, Any]
    members: dict[str, Group | Array] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        """The array of that name; raises Broken if there is none."""
        array = self.members.get(name)
        if not isinstance(array, Array):
            raise Broken(f"it has no array {name}")
        return array


def load(where: Place, listed: Callable[[set[str]], None] = _any, read: Read = _any) -> Group:
    """A group read into memory, with arrays not decoded yet. Raises Broken, and OSError if files cannot be read.

    `listed` is called with the keys of all files, `read` with each key and its bytes; their errors end the reading.
    """
    sizes = where.files()
    listed(set(sizes))
    folders = {key[: -len("zarr.json")].rstrip("/") for key in sizes if f"/{key}".endswith("/zarr.json")}
    if "" not in folders:
        raise Broken("it has no zarr.json")
    if deep := next((name for name in sorted(folders) if name.count("/") >= DEPTH), None):
        raise Broken(f"{deep} lies deeper than any array of a store")
    nodes = {re.sub(r"/?(zarr\.json|c(/\d+)*)$", "", key) for key in sizes if is_of_node(key)}
    if lost := min(nodes - folders, default=""):
        raise Broken(f"{lost}/zarr.json is missing")
    names = sorted(folders, key=lambda name: name.split("/") if name else [])
    documents = dict(zip(names, where.map(lambda name: _document(where, name, sizes, read), names), strict=True))
    budget, files = _Budget(sizes), _by_folder(sizes, folders)
    root = Group(_attributes("", documents.pop("")))
    groups: dict[str, Group] = {"": root}
    for name, content in documents.items():
        parent, _, leaf = name.rpartition("/")
        if parent not in groups:
            raise Broken(f"{name} does not lie in a group")
        if content.get("node_type") == "group":
            groups[parent].members[leaf] = groups[name] = Group(_attributes(name, content))
        else:
            groups[parent].members[leaf] = _array(where, name, content, files[name], budget, read)
    return root


class _Budget:
    """The memory that a group may still use."""

    def __init__(self, sizes: Mapping[str, int]):
        self.left = max(MOST_FREE, RATIO * sum(sizes.values()))
        self._all = self.left

    def take(self, name: str, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise Broken(f"with {name} it takes more than {self._all} bytes in memory, too many for its size")


def _by_folder(sizes: Mapping[str, int], folders: set[str]) -> dict[str, dict[str, int]]:
    """{folder: {key below it: bytes}} of the nodes' folders, each file under the deepest that holds it."""
    found: dict[str, dict[str, int]] = {name: {} for name in folders}
    for key, size in sizes.items():
        folder = key.rpartition("/")[0]
        while folder and folder not in found:
            folder = folder.rpartition("/")[0]
        found[folder][key[len(folder) :].lstrip("/")] = size
    return found


def _array(
    where: Place, name: str, content: dict[str, Any], sizes: Mapping[str, int], budget: _Budget, seen: Read
) -> Array:
    """An array with its existing files read; their decoded size is taken from the budget."""
    try:
        meta = metadata.parse(content)
    except ValueError as e:
        raise Broken(f"{name}: {e}") from e
    if meta.sharded:
        raise Broken(f"{name} is cut into shards, as only frames are")
    budget.take(name, math.prod(meta.shape) * (meta.dtype.itemsize if meta.dtype else TEXT_BYTES))
    there = [key for key in sizes if _is_chunk(key, meta)]
    for key in there:
        if sizes[key] > (chunks.most_stored(meta.chunk_bytes) if meta.dtype else metadata.CHUNK_BYTES):
            raise Broken(f"{name}/{key} has {sizes[key]} bytes, more than any of its chunks can have")
        budget.take(name, sizes[key])
    read = where.map(lambda key: (where / name / key).read(), there)
    files = dict(zip(there, read, strict=True))
    for key, data in files.items():
        seen(f"{name}/{key}", data)
    for data in files.values() if meta.dtype is None else ():
        try:
            size = _text_bytes(meta, chunks.checked(data, meta.crc))
        except (ValueError, IndexError):
            continue  # reading it will report what is wrong
        budget.take(name, size)
    return Array(name, meta, files)


def _is_chunk(key: str, meta: Metadata) -> bool:
    """Whether a file's key is one of a chunk within the array's shape."""
    _, *numbers = key.split(meta.separator)
    index = [int(n) for n in numbers if n.isascii() and n.isdecimal() and len(n) < 16]
    grid = _grid(meta.shape, meta.file_shape)
    return len(index) == len(grid) and key == meta.key(index) and all(i < n for i, n in zip(index, grid, strict=True))


def _text_bytes(meta: Metadata, data: memoryview) -> int:
    """Decoded bytes of a chunk of texts, as it says itself."""
    if meta.codec == "blosc":
        raise ValueError("texts are not coded by blosc")
    size = chunks.zstd_size(data) if meta.codec else len(data)
    if not 0 <= size <= metadata.CHUNK_BYTES:
        raise ValueError(f"it says that it holds {size} bytes")
    return size


def _document(where: Place, name: str, sizes: Mapping[str, int], seen: Read) -> dict[str, Any]:
    key = f"{name}/zarr.json".lstrip("/")
    try:
        if sizes[key] > META_BYTES:
            raise ValueError(f"it has {sizes[key]} bytes")
        data = (where / key).read()
        seen(key, data)
        return plain_json.parse_dict(data, META_BYTES)
    except ValueError as e:
        raise Broken(f"{key} cannot be read: {e}") from e


def _attributes(name: str, content: dict[str, Any]) -> dict[str, Any]:
    attrs = content.get("attributes", {})
    if content.get("zarr_format") != 3 or content.get("node_type") != "group" or not isinstance(attrs, dict):
        raise Broken(f"{name or 'its zarr.json'} is not a group of Zarr v3")
    return dict(attrs)


def _grid(shape: tuple[int, ...], part: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-n // c) for n, c in zip(shape, part, strict=True))
