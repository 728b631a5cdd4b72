"""Where a store begins and ends: which folder is one, and in which one a place lies.

A store is recognised by its root's zarr.json, by its inventory where that is lost, and by the mark of one that is being made.
A place that cannot be read (another user's folder or prefix) does not count as a store.
"""

from __future__ import annotations

import os

from concord import plain_json
from store import layout
from store.layout import CREATION, StoreError
from store.place import Folder, Outside, Place, place

INVENTORY, INVENTORY_FORMAT = "inventory.json", b'"concord-av inventory"'


def is_store(root: Place) -> bool:
    """Whether a store is there or is being made; one whose zarr.json is damaged or a link counts."""
    root = root.confined()
    try:
        if (root / CREATION).exists():
            return True
        if (root / "zarr.json").exists():
            attributes = plain_json.parse_dict((root / "zarr.json").read()).get("attributes")
            if isinstance(attributes, dict) and attributes.get("format") == layout.FORMAT:
                return True
        return (root / INVENTORY).exists() and INVENTORY_FORMAT in (root / INVENTORY).read()
    except (Outside, ValueError):
        return True
    except (OSError, StoreError):
        return False


def store_of(location: str | os.PathLike[str] | Place, above: bool = False) -> Place | None:
    """The store that a place lies in or is, the innermost; None where it lies in none. With `above` the place itself does not
    count. In a bucket each prefix above is asked for once."""
    where = place(location)
    if isinstance(where, Folder):
        where = Folder(os.path.realpath(where.location))
    at = where.parent if above else where
    while True:
        if is_store(at):
            return at
        upper = at.parent
        if upper == at or upper.location.rstrip("/").endswith(":"):  # the root, or beyond the bucket
            return None
        at = upper
