"""Small groups as arrays in memory: columns of a table, and the nested groups of a fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import numpy as np

from concord import plain_json
from store.arrays import metadata
from store.arrays.coding import short_dtype
from store.arrays.groups import Array, Broken, Group
from store.arrays.inventory import Damaged
from store.layout import StoreError
from store.place import Place

# What reading a group raises that is damaged, or whose parts do not fit together.
UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError)


@contextmanager
def unreadable(where: Place, remedy: str) -> Iterator[None]:
    """Turns what reading a damaged group raises into a StoreError that names `where`; Damaged passes as it is."""
    try:
        yield
    except Damaged:
        raise
    except UNREADABLE as e:
        raise StoreError(f"{where} is damaged ({e}); {remedy}") from e


def length(where: Place) -> int:
    """Rows of a column, by its metadata alone.

    A table is as long as the column that is written last: who adds rows lengthens the other columns first.
    """
    with unreadable(where, "restore it from a copy"):
        (rows,) = metadata.parse(plain_json.parse((where / "zarr.json").read())).shape
    return rows


def column(where: Place, array: Array, rows: int | None = None, kind: str = "") -> np.ndarray:
    """First `rows` of an array that was read from the group at `where`, all by default; strings as Python's.

    `kind` is the layout's spelling of the dtype that a column must have.
    """
    folder = where / array.name
    found = "string" if array.meta.dtype is None else short_dtype(array.meta.dtype)
    if kind and (found != kind or len(array.meta.shape) != 1):
        raise StoreError(f"{folder} holds {found} {list(array.meta.shape)}, expected a column of {kind}")
    try:
        values = array.read(rows)
    except Broken as e:
        raise StoreError(f"{folder} is damaged ({e}); restore it from a copy") from e
    if rows is not None and len(values) != rows:
        raise StoreError(f"{folder} has {len(values)} rows, expected {rows}; restore it from a copy")
    return values


def tree(where: Place, group: Group) -> dict[str, Any]:
    """A group that was read from `where`, as a nested dict of arrays, the attributes of groups under "attrs"."""
    found: dict[str, Any] = {"attrs": dict(group.attrs)}
    for name, node in group.members.items():
        found[unquote(name)] = tree(where, node) if isinstance(node, Group) else column(where, node)
    return found
