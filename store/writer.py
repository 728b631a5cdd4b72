"""Writes to a store and extends it, so that a kill at any moment leaves it readable and the next run can continue.

Frames are written by whole shards: one `write_shard` writes each file once, completely or not at all, and no two
writers write the same file. Everything else (`clips/`, `fit/`, `words/`, attributes, sizes) belongs to one driver; its
first change opens the inventory (`store.arrays.inventory`), its last step closes it. The length of `clips/done` is the
table's, and `done` is written last. Every inner chunk of a written shard is stored, zeros too, with a CRC-32C, so that
one that is not there is damage and not a row of zeros.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr

from store import layout
from store.arrays import groups, inventory, swap
from store.arrays.attributes import Layout, RootAttributes
from store.arrays.coding import (
    as_column,
    create_frames,
    encoded_shard,
    fitting,
    opened,
    resize,
    short_dtype,
    write_column,
)
from store.arrays.inventory import Inventory
from store.arrays.nodes import (
    array_names,
    attributes_of,
    build,
    consolidated,
    delete_node,
    is_node,
    read_document,
    root_attrs,
    write_document,
)
from store.layout import STAGING, StoreError
from store.place import Place, place


class Writer:
    """A store opened for writing; cheap to make and to pickle, since it keeps only the path and reads sizes when asked.

    `write_shard` may be called by any process, for different shards at the same time; everything else by one driver only.
    """

    def __init__(self, path: str | os.PathLike[str] | Place, options: Mapping[str, str] | None = None):
        """Raises StoreError where there is no store of a version that this release writes."""
        self.place = place(path, options).confined()
        self.path = self.place.path  # a Path, or the URL
        attrs = root_attrs(self.place)
        if attrs["version"] != layout.VERSION:
            raise StoreError(
                f"{self.path}: store version {attrs['version']} can be read but not written; make a new one"
            )
        self.chunk_rows = int(attrs["layout"]["chunk_rows"])
        self.shard_rows = int(attrs["layout"]["shard_rows"])

    @classmethod
    def open(cls, path: str | os.PathLike[str] | Place, options: Mapping[str, str] | None = None) -> Writer:
        """A writer for a store that exists."""
        return cls(path, options)

    @property
    def attrs(self) -> RootAttributes:
        """The root attributes as they are on disk now."""
        return root_attrs(self.place)

    def update_attrs(self, attrs: Mapping[str, Any]) -> None:
        """Replace some root attributes (top level, JSON-able; NaN becomes null), in one atomic write."""
        self._open_inventory()
        root = read_document(self.place)
        write_document(self.place, {**root, "attributes": {**root["attributes"], **attributes_of(attrs)}})

    # -- clips ---------------------------------------------------------------------------------------------------------

    @property
    def num_clips(self) -> int:
        return self.array("clips/done").shape[0]

    def append_clips(self, columns: Mapping[str, Sequence[Any]]) -> int:
        """Add rows to `clips/`, columns not named at their "not known yet" value; returns the first new row.

        `identities` may be strings (JSON) or lists of strings. Raises StoreError for unknown or unequal columns and for an id
        that the store has already. A kill halfway leaves the table as it was.
        """
        first, given = self.num_clips, self._columns(columns)
        if "id" not in given:
            raise StoreError("clips need an id")
        count = len(given["id"])
        known = set(self._column("id", first).tolist())
        for clip_id in given["id"].tolist():
            if clip_id in known:
                raise StoreError(f"clip {clip_id} is in {self.path} already; ids must be unique")
            known.add(clip_id)
        self._drop_consolidated()
        for name in self._own_columns():  # `done` comes last and makes the rows count
            dtype, unknown = layout.CLIP_ARRAYS[name]
            values = given.get(name)
            if values is None:
                values = np.full(count, unknown, dtype=object if dtype == "string" else dtype)
            write_column(self.place / "clips" / name, first, values, rows=first + count)
        return first

    def write_clips(self, first: int, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
        """Overwrite rows from `first` on in the columns named; `done`, where given, after all the others."""
        given = self._columns(columns)
        self._open_inventory()
        for name in [name for name in self._own_columns() if name in given]:
            stop = first + len(given[name])
            if first < 0 or stop > self.num_clips:
                raise StoreError(f"clips {first} to {stop} are not all in {self.path}: it has {self.num_clips}")
            write_column(self.place / "clips" / name, first, given[name])

    def _own_columns(self) -> list[str]:
        """The columns of `clips/` that this store has, in order; one of an earlier release lacks LATER_COLUMNS, and keeps what
        it was made with."""
        lacks = [name for name in layout.LATER_COLUMNS if not is_node(self.place / "clips" / name)]
        return [name for name in layout.CLIP_ARRAYS if name not in lacks]

    def _columns(self, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> dict[str, np.ndarray]:
        unknown = sorted(set(columns) - set(layout.CLIP_ARRAYS))
        if unknown:
            raise StoreError(f"clips/ has no column {', '.join(unknown)}; it has {', '.join(layout.CLIP_ARRAYS)}")
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise StoreError(f"columns of clips/ differ in length: {lengths}")
        return {name: as_column(values, layout.CLIP_ARRAYS[name][0]) for name, values in columns.items()}

    # -- frames --------------------------------------------------------------------------------------------------------

    @property
    def frame_arrays(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """{name: (dtype, shape of a row)} of the arrays in `frames/`."""
        return self._kinds(array_names(self.place / "frames"))

    def _kinds(self, names: Sequence[str]) -> dict[str, tuple[str, tuple[int, ...]]]:
        arrays = dict(zip(names, self.place.map(lambda name: self.array(f"frames/{name}"), names), strict=True))
        return {name: (short_dtype(array.dtype), array.shape[1:]) for name, array in arrays.items()}

    @property
    def num_rows(self) -> int:
        """Rows of `frames/`, a whole number of shards."""
        return min(self.array(f"frames/{name}").shape[0] for name in array_names(self.place / "frames"))

    def grow_rows(self, num_rows: int) -> int:
        """Make room in every frame array for at least `num_rows` rows, whole shards; never shrinks. Returns the new size."""
        rows = max(self.num_rows, -(-num_rows // self.shard_rows) * self.shard_rows)
        self._drop_consolidated()
        for name in array_names(self.place / "frames"):
            if self.array(f"frames/{name}").shape[0] < rows:
                resize(self.place / "frames" / name, rows)
        return rows

    def blank_shard(self, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Arrays [shard rows, ...] that hold what an unused row holds, to lay clips into; all arrays, or those named."""
        have = self.frame_arrays if names is None else self._kinds(names)
        return {
            name: np.full((self.shard_rows, *row), layout.fill_value(dtype), dtype)
            for name, (dtype, row) in have.items()
        }

    def write_shard(self, shard: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write one shard of some frame arrays, whole: each [shard rows, ...], each file replaced in one step and flushed.

        Floats may come wider than stored; a value that f2 cannot hold raises StoreError, like a wrong shape or dtype, before
        anything is written. Arrays not named stay as they are. Readers do not take it for what was there until `consolidate`.
        """
        ready = {}
        for name, data in arrays.items():
            if not is_node(self.place / "frames" / name):
                raise StoreError(f"{self.path} has no frames/{name}; it has {', '.join(sorted(self.frame_arrays))}")
            array = self.array(f"frames/{name}")
            if not 0 <= shard < array.shape[0] // self.shard_rows:
                raise StoreError(f"frames/{name} has no shard {shard}: grow_rows first")
            ready[name] = array, fitting(name, np.asarray(data), array.dtype, (self.shard_rows, *array.shape[1:]))
        self._open_inventory()
        for name, (array, data) in ready.items():
            key = array.metadata.encode_chunk_key((shard,) + (0,) * (data.ndim - 1))
            (self.place / "frames" / name / key).write(encoded_shard(array, data))

    def ensure_projections(self, width: int) -> None:
        """Have both projection arrays with `width` columns; arrays of another width are dropped and made again, unwritten."""
        for name in layout.PROJECTIONS:
            folder = self.place / "frames" / name
            if is_node(folder) and self.array(f"frames/{name}").shape[1:] == (width,):
                continue
            self._drop_consolidated()
            delete_node(folder)
            self.add_frames(name, "f2", (width,), self.num_rows)

    def add_frames(self, name: str, dtype: str, row: tuple[int, ...], rows: int) -> None:
        """Make an array of `frames/` with so many rows, unwritten; `row` is the shape of one."""
        cut: Layout = {"chunk_rows": self.chunk_rows, "shard_rows": self.shard_rows}
        files = build(lambda group: create_frames(group, name, dtype, row, rows, cut))
        (self.place / "frames" / name / "zarr.json").write(files[f"{name}/zarr.json"])

    # -- fit, words ----------------------------------------------------------------------------------------------------

    def write_fit(self, fit: Mapping[str, Any]) -> None:
        """Replace `fit/` by a nested dict: arrays, dicts for groups, a group's attributes (JSON-able) under "attrs"."""
        swap.keep_aside(self.place, "fit", swap.of_fit(fit))
        self._finish_swap("fit")

    def write_words(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Replace `words/`: clip (row number, ascending), start, end (seconds), text, probability, equally long."""
        swap.keep_aside(self.place, "words", swap.of_words(columns))
        self._finish_swap("words")

    def _finish_swap(self, name: str) -> None:
        if (files := swap.kept_aside(self.place, name)) is not None:
            self._drop_consolidated()
            swap.lay_out(self.place, name, files)

    # -- before and after ----------------------------------------------------------------------------------------------

    def drop(self, group: str) -> None:
        """Remove `fit` or `words`, damaged or not."""
        self._drop_consolidated()
        delete_node(self.place / group)

    def begin(self) -> None:
        """Prepare a store for a run that will change it: the inventory is open until `consolidate`."""
        self._open_inventory()
        if not self.attrs.get(inventory.MARK):
            self.update_attrs({inventory.MARK: True})
        (self.place / layout.CREATION).delete()  # of a second creation, which found this store and ended

    def tidy(self) -> None:
        """Clear what a killed run left behind; for the driver, before any worker writes. Staged batches stay."""
        for name in ("fit", "words"):
            self._finish_swap(name)
        self.place.tidy()

    def consolidate(self) -> None:
        """The driver's last step: collect all metadata in the root, so that `zarr.open` lists the store by one read,
        and close the inventory over all there is."""
        self._open_inventory()
        (self.place / STAGING).prune()
        (self.place / "zarr.json").write(consolidated(self.place))
        inventory.write(self.place, inventory.take(self.place, self.attrs))

    def _open_inventory(self) -> None:
        """Before any change: readers hold the store to its inventory only while nobody writes."""
        if inventory.is_closed(self.place):
            inventory.write(self.place, Inventory())

    def _drop_consolidated(self) -> None:
        """Before a change of shape or of nodes: stale consolidated metadata would mislead plain readers after a kill."""
        self._open_inventory()
        root = read_document(self.place)
        if root.pop("consolidated_metadata", None) is not None:
            write_document(self.place, root)

    def _column(self, name: str, length: int) -> np.ndarray:
        """First rows of a column of `clips/`; raises StoreError where any column is damaged, since zarr adds to all of them."""
        try:
            table = groups.load(self.place / "clips")
            return {name: table[name].read(length) for name in self._own_columns()}[name]
        except (OSError, ValueError) as e:
            raise StoreError(f"{self.place / 'clips'} is damaged ({e}); restore it from a copy") from e

    def array(self, name: str) -> zarr.Array[Any]:
        """An array by its path in the store; raises StoreError where its metadata cannot be read."""
        return opened(self.place / name)
