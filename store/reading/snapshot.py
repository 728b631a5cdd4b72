"""A store as it was when it was opened: its root attributes, its inventory, and the small groups that are held to it.

A run may change the store at any time. A reader that finds a file other than the inventory says checks whether the store has
changed since it was opened: if so, nothing is damaged, and the store must be opened again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from store import layout
from store.arrays import groups, inventory, tables
from store.arrays.attributes import RootAttributes
from store.arrays.inventory import Damaged, Inventory
from store.arrays.nodes import root_attrs
from store.layout import StoreError
from store.place import Place

TRIES = 5  # times that a store is opened again where a run has just changed it

A = TypeVar("A")


@dataclass(frozen=True)
class Snapshot:
    """What the store at `place` said of itself when it was opened."""

    place: Place
    attrs: RootAttributes
    inventory: Inventory

    @classmethod
    def of(cls, root: Place) -> Snapshot:
        """The store as it is now. Raises StoreError where there is none, or one of a newer release."""
        attrs = root_attrs(root)
        return cls(root, attrs, inventory.read(root, attrs))

    def has_changed(self) -> bool:
        """Whether a run has begun to change the store since it was opened, or has finished doing so."""
        return inventory.read(self.place, root_attrs(self.place)) != self.inventory

    def changed(self) -> StoreError:
        """The error for a store that has changed."""
        return StoreError(f"{self.place.path} was changed by a run since it was opened; open it again")

    def check_labels(self) -> None:
        """Raises StoreError while the fit is being replaced: projections and soft labels may be of two fits."""
        if (self.attrs.get("similarity") or {}).get("complete") is False:
            root = self.place.path
            raise StoreError(
                f"the fit of {root} is being replaced, or a run that did so was interrupted: soft labels of two fits may lie "
                f"side by side; wait for that run, or continue it: precompute.py --store {root}"
            )

    def group(self, name: str) -> groups.Group:
        """A small group, read whole. Raises Damaged where it is not what the inventory says, OSError and ValueError where it
        cannot be read."""
        held = self.inventory
        return groups.load(
            self.place / name,
            lambda keys: held.check_present(self.place, name, {f"{name}/{key}" for key in keys}),
            lambda key, data: held.check(self.place, f"{name}/{key}", data),
        )

    def table(self, name: str, kinds: Mapping[str, str], length_of: str) -> dict[str, np.ndarray]:
        """The columns {name: dtype} of a table, each as long as the column `length_of`; those of LATER_COLUMNS that an earlier
        release did not write are "not known"."""
        where = self.place / name
        length = tables.length(where / length_of)
        with tables.unreadable(where, "restore it from a copy"):
            group = self.group(name)
            lacks = [column for column in layout.LATER_COLUMNS if column in kinds and column not in group.members]
            arrays = {column: group[column] for column in kinds if column not in lacks}
        found = {column: tables.column(where, array, length, kinds[column]) for column, array in arrays.items()}
        for column in lacks:
            kind = object if kinds[column] == "string" else kinds[column]
            found[column] = np.full(length, layout.CLIP_ARRAYS[column][1], kind)
        return {column: found[column] for column in kinds}


def opened(root: Place, read: Callable[[Snapshot], A]) -> tuple[Snapshot, A]:
    """A snapshot of a store and what `read` makes of it, both from one state of the store.

    Where `read` raises Damaged, the store is opened again if a run has changed it meanwhile. Raises StoreError where that does
    not end.
    """
    for _ in range(TRIES):
        snapshot = Snapshot.of(root)
        try:
            snapshot.inventory.check_attributes(root, snapshot.attrs)
            return snapshot, read(snapshot)
        except Damaged:
            if not snapshot.has_changed():
                raise
    raise StoreError(f"{root.path} is being changed by a run; open it again when that has ended")
