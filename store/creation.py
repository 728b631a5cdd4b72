"""Creates a store, completely or not at all.

A store is created in an empty folder. During creation the folder has a mark file, written first and removed last, that
lists its files. A folder without this mark is neither written to nor removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import zarr

from concord import plain_json
from concord.files import is_unfinished
from store import layout
from store.arrays import inventory
from store.arrays.attributes import Layout
from store.arrays.coding import create_column, create_frames
from store.arrays.inventory import Inventory
from store.arrays.nodes import (
    attributes_of,
    build,
    is_of_node,
)
from store.layout import CREATION, TABLES, StoreError
from store.place import Folder, Place, lease, place
from store.place.bounds import store_of
from store.writer import Writer


def create(
    path: str | os.PathLike[str] | Place,
    widths: Mapping[str, int],
    attrs: Mapping[str, Any],
    extra: Mapping[str, tuple[str, tuple[int, ...]]] | None = None,
    *,
    chunk_rows: int = layout.CHUNK,
    shard_rows: int = layout.SHARD,
    options: Mapping[str, str] | None = None,
) -> Writer:
    """Make an empty store, in a folder or at a bucket's URL (`options`: see `store.place`), and open it for writing.

    `widths` gives the columns of the embeddings {"asr": Da, "vsr": Dv}; `attrs` (JSON-able) joins the root attributes;
    `extra` adds frame arrays {name: (dtype, shape of a row)}. Raises StoreError if something is there already. The
    store appears completely or not at all. Its flags are to have the bit of held pictures (`concord.arrays.held`).
    """
    root = place(path, options).confined()
    if is_taken(root):
        raise StoreError(f"{root} exists already and is not empty; choose an empty folder or a new one")
    check_lone(root)
    if set(widths) != set(layout.EMBEDDINGS) or min(widths.values()) < 1:
        raise StoreError(f"widths must give {' and '.join(layout.EMBEDDINGS)} at least one column, not {dict(widths)}")
    if chunk_rows < 1 or shard_rows % chunk_rows:
        raise StoreError(f"a shard must be a whole number of chunks, not {shard_rows} rows of {chunk_rows}")
    arrays = {
        **layout.FRAME_ARRAYS,
        **layout.SECOND_ARRAYS,
        **{name: ("f2", (widths[name],)) for name in layout.EMBEDDINGS},
        **(extra or {}),
    }
    cut: Layout = {"chunk_rows": chunk_rows, "shard_rows": shard_rows}
    fixed = {
        "format": layout.FORMAT,
        "version": layout.VERSION,
        "fps": layout.FPS,
        "sample_rate": layout.SAMPLE_RATE,
        "layout": cut,
        "held_pictures": True,
        inventory.MARK: True,
    }

    def fill(group: zarr.Group) -> None:
        clips, frames = (group.create_group(table) for table in TABLES)
        for name, (dtype, unknown) in layout.CLIP_ARRAYS.items():
            create_column(clips, name, dtype, unknown, 0, "clip")
        for name, (dtype, row) in arrays.items():
            create_frames(frames, name, dtype, row, 0, cut)

    files = build(fill, attributes_of({**attrs, **fixed}))
    root.map(lambda key: (root / key).delete(), _marked(root))  # left by an interrupted creation
    root.tidy()
    mark(root, list(files))
    inventory.write(root, Inventory())
    root.write_tree(files, last="zarr.json")
    (root / CREATION).delete()
    return Writer(root)


def mark(root: Place, files: Sequence[str] = ()) -> None:
    """Mark the place as a store under creation with these files, before anything else is written, even the lock."""
    (root / CREATION).write(json.dumps({"format": layout.FORMAT, "files": sorted(files)}).encode())


def is_taken(root: Place) -> bool:
    """Whether a new store cannot be created here because something exists; remains of an interrupted creation do not
    count."""
    names = {name for name in root.names() if not is_unfinished(name)}
    if not names and not root.exists():
        return False
    ours = {CREATION, lease.FILE, inventory.FILE}
    if CREATION not in names or not names <= {*ours, *TABLES}:
        return True
    return not {key for key in root.files() if not is_unfinished(key.rpartition("/")[2])} <= {*ours, *_marked(root)}


def check_lone(root: Place) -> None:
    """Raises StoreError if a new store would be inside another store, which may remove it when it rewrites a group."""
    if other := store_of(root, above=True):
        raise StoreError(f"{root} lies in the store {other}; choose a place outside it for a store of its own")


def unmake(root: Place) -> None:
    """Remove a store that was just created and has no clips, under its lock: the files of its creation and, on this
    machine, the lock and the folder; all other files stay."""
    files = [key for key in root.files() if key.startswith(tuple(f"{table}/" for table in TABLES)) and is_of_node(key)]
    mark(root, files)
    (root / "zarr.json").delete()
    for key in [*files, inventory.FILE]:
        (root / key).delete()
    for table in TABLES:
        (root / table).prune()
    if isinstance(root, Folder) and set(root.names()) <= {CREATION, lease.FILE}:
        (root / lease.FILE).delete()
        (root / CREATION).delete()
        root.prune()


def _marked(root: Place) -> list[str]:
    """Files that the mark of a creation lists; none if it cannot be read."""
    try:
        files = [str(key) for key in plain_json.parse_dict((root / CREATION).read())["files"]]
        return [key for key in files if is_of_node(key) and not {"", ".", ".."} & set(key.split("/"))]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []
