"""The Zarr nodes of a store: the root and its attributes, groups built in memory, and their removal.

Everything passes through memory as {key: bytes}: Zarr encodes and decodes there, and only `store.place` accesses the
disk. So each file is written completely or not at all and flushed before the next, and a network transfers whole files,
many at a time.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import zarr

from concord import plain_json
from concord.text import spelled
from store import layout
from store.arrays import attributes
from store.arrays.attributes import RootAttributes
from store.layout import CREATION, StoreError
from store.place import Place
from store.place.bounds import INVENTORY, is_store


def root_attrs(root: Place) -> RootAttributes:
    """Root attributes of a store. Raises StoreError if there is no store, or one of a newer version."""
    attrs = read_document(root).get("attributes")
    if not isinstance(attrs, dict) or attrs.get("format") != layout.FORMAT:
        raise StoreError(f"{root} is not a concord-av store; precompute.py makes one")
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
        raise StoreError(f"{root}: its attribute {wrong}; its zarr.json was changed by hand, or is not concord-av's")
    return cast(RootAttributes, attrs)


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
    """The root's metadata document, from any writer; raises StoreError if there is none."""
    try:
        return plain_json.parse_dict((root / "zarr.json").read())
    except (FileNotFoundError, NotADirectoryError):
        if isinstance(root.path, Path) and not root.path.exists():
            raise StoreError(f"{root} does not exist; precompute.py makes a store") from None
        raise StoreError(f"{root} is not a store: it has no zarr.json; precompute.py makes one") from None
    except (OSError, ValueError) as e:
        raise StoreError(f"{root}/zarr.json cannot be read: {e}") from e


def write_document(root: Place, document: dict[str, Any]) -> None:
    """Replace the root's metadata document in one step."""
    (root / "zarr.json").write(encoded(document))


def delete_node(where: Place) -> None:
    """Remove an array or a group with everything below it, its own metadata first, so that a kill never leaves half of
    it. Files that are neither metadata nor chunks stay, and so does a store that was put there."""
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
        key: buffer(data) for key, data in zip(keys, root.map(lambda k: (root / k).read(), keys), strict=True)
    }
    with warnings.catch_warnings():  # consolidated metadata is an extension of Zarr v3, meant here
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(zarr.storage.MemoryStore(files), zarr_format=3)
    return bytes(files["zarr.json"].to_bytes())


def buffer(data: bytes) -> Any:
    """Bytes as Zarr's stores in memory hold them."""
    return zarr.core.buffer.cpu.Buffer.from_bytes(data)


def encoded(document: Mapping[str, Any]) -> bytes:
    """A metadata document as Zarr itself writes it."""
    return json.dumps(document, indent=2, allow_nan=False).encode()


def attributes_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """A node's attributes as JSON holds them; raises StoreError for what it cannot hold."""
    try:
        return dict(plain_json.cleaned(values, spelled))
    except TypeError as e:
        raise StoreError(f"an attribute cannot be stored: {e}") from e
