"""Replaces a whole group (`fit/`, `words/`) by another, so that a kill leaves either the old one or the new one.

The new group is first written to one file. Then the old one is removed and the new one is unpacked in its place.
Between these steps there is no such group, and the next driver's `Writer.tidy` repeats the step.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr

from store import layout
from store.arrays.coding import as_column, create_column, create_small
from store.arrays.nodes import attributes_of, build, delete_node
from store.layout import STAGING, StoreError, node_name
from store.place import Place


def keep_aside(root: Place, name: str, files: Mapping[str, bytes]) -> None:
    """Keep the files of a new group in one file."""
    with _next(root, name).writing() as file, zipfile.ZipFile(file, "w") as archive:
        for key, data in files.items():
            archive.writestr(key, data)


def kept_aside(root: Place, name: str) -> dict[str, bytes] | None:
    """The files of a group that was kept aside and is not laid out yet."""
    try:
        ready = _next(root, name).read()
    except FileNotFoundError:
        return None
    with zipfile.ZipFile(io.BytesIO(ready)) as archive:
        return {key: archive.read(key) for key in archive.namelist()}


def lay_out(root: Place, name: str, files: Mapping[str, bytes]) -> None:
    """Put a group that was kept aside in the place of the old one."""
    delete_node(root / name)
    (root / name).write_tree(files, last="zarr.json")
    _next(root, name).delete()


def of_fit(fit: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of `fit/` from a nested dict: arrays, dicts for groups, a group's attributes (JSON-able) under "attrs"."""

    def fill(group: zarr.Group, values: Mapping[str, Any] = fit) -> None:
        for name, value in values.items():
            if name == "attrs":
                group.attrs.update(attributes_of(value))
            elif isinstance(value, Mapping):
                fill(group.create_group(node_name(name)), value)
            else:
                create_small(group, node_name(name), np.asarray(value))

    return build(fill)


def of_words(columns: Mapping[str, Any]) -> dict[str, bytes]:
    """The files of `words/` from its columns; raises StoreError where they are not those, of one length and in clip order."""
    if set(columns) != set(layout.WORD_ARRAYS) or len({len(v) for v in columns.values()}) != 1:
        raise StoreError(f"words/ needs the columns {', '.join(layout.WORD_ARRAYS)}, equally long")
    if np.any(np.diff(np.asarray(columns["clip"], np.int64)) < 0):
        raise StoreError("words/ must come in clip order")

    def fill(group: zarr.Group) -> None:
        for name, dtype in layout.WORD_ARRAYS.items():
            values = as_column(columns[name], dtype)
            unknown = "" if dtype == "string" else layout.fill_value(dtype)
            create_column(group, name, dtype, unknown, len(values), "word")[:] = values

    return build(fill)


def _next(root: Place, name: str) -> Place:
    return root / STAGING / f"{name}.next"
