"""Finds damage to the small files of a store that no run is writing, and rewrites their metadata from intact files."""

from __future__ import annotations

import zarr

from store import layout
from store.arrays import inventory
from store.arrays.coding import create_column
from store.arrays.inventory import Inventory
from store.arrays.nodes import build
from store.layout import TABLES, StoreError
from store.writer import Writer


def damage(writer: Writer) -> dict[str, str]:
    """{key: what is wrong} for the small files of a store that no run is writing; empty without damage, and if its
    inventory is open or missing. Raises StoreError if attributes or the inventory itself are damaged."""
    held = _inventory(writer)
    held.check_attributes(writer.place, writer.attrs)
    return inventory.damage(writer.place, held)


def mend_metadata(writer: Writer) -> list[str]:
    """Rewrite lost or damaged metadata of tables and arrays; returns the names of the repaired nodes.

    It follows from the root's attributes and from the intact arrays; their contents are not read. For the driver,
    before it begins.
    """
    held = _inventory(writer)
    known = {**layout.FRAME_ARRAYS, **layout.SECOND_ARRAYS, **layout.OPTIONAL_ARRAYS}
    known |= {side: ("f2", (int(writer.attrs["teachers"][side]["dim"]),)) for side in layout.EMBEDDINGS}
    perhaps = (*layout.SECOND_ARRAYS, *layout.OPTIONAL_ARRAYS)
    optional = [name for name in perhaps if (writer.place / "frames" / name).names()]
    frames = [*layout.FRAME_ARRAYS, *layout.EMBEDDINGS, *optional]
    mended = [table for table in TABLES if not _is_whole(writer, table, held)]
    for table in mended:
        (writer.place / table / "zarr.json").write(build(lambda group: None)["zarr.json"])
    for table, names in {"frames": frames, "clips": _columns(writer, held)}.items():
        whole = [name for name in names if _is_whole(writer, f"{table}/{name}", held)]
        if not whole:
            raise StoreError(f"{writer.place / table} has no array that can be read; restore it from a copy")
        rows = min(writer.array(f"{table}/{name}").shape[0] for name in whole)
        for name in [name for name in names if name not in whole]:
            if table == "frames":
                writer.add_frames(name, *known[name], rows)
            else:
                (writer.place / "clips" / name / "zarr.json").write(_column_document(name, rows))
            mended.append(f"{table}/{name}")
    return mended


def _columns(writer: Writer, held: Inventory) -> list[str]:
    """The columns of `clips/` that the store has or had."""
    return [
        name
        for name in layout.CLIP_ARRAYS
        if name not in layout.LATER_COLUMNS
        or f"clips/{name}/zarr.json" in held.files
        or (writer.place / "clips" / name).names()
    ]


def _is_whole(writer: Writer, node: str, held: Inventory) -> bool:
    """Whether a node's metadata can be read and, as far as an inventory tells, is what was written."""
    key = f"{node}/zarr.json"
    try:
        held.check(writer.place, key, (writer.place / key).read())
        if "/" in node:
            writer.array(node)
    except (inventory.Damaged, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        return False
    return True


def _inventory(writer: Writer) -> Inventory:
    """The present inventory; an open one if it is lost, so that the existing files are accepted."""
    return inventory.read(writer.place, writer.attrs) if (writer.place / inventory.FILE).exists() else Inventory()


def _column_document(name: str, rows: int) -> bytes:
    """The metadata of a column of `clips/`."""

    def fill(group: zarr.Group) -> None:
        create_column(group, name, *layout.CLIP_ARRAYS[name], rows, "clip")

    return build(fill)[f"{name}/zarr.json"]
