"""The arrays of `frames/` as one snapshot has them: windows of rows, and damage that shows without reading chunks.

A row that was not written, or is damaged, raises StoreError with the clip and the array; zeros never stand for missing rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from store import layout
from store.arrays import inventory
from store.arrays.nodes import array_names, root_attrs
from store.arrays.shards import ABSENT, Damage, ShardCache, ShardedArray
from store.layout import StoreError
from store.reading.snapshot import Snapshot


class Frames:
    """All frame arrays of a store, with one cache of open shards; may be used by many threads."""

    def __init__(self, snapshot: Snapshot):
        """Raises StoreError where an array that every store has is missing, or one cannot be read."""
        self._snapshot = snapshot
        place, held = snapshot.place, snapshot.inventory
        self.names: list[str] = array_names(place / "frames")
        nodes = {"frames/zarr.json", *(f"frames/{name}/zarr.json" for name in self.names)}
        held.check_present(place, "frames", nodes)
        lost = [name for name in (*layout.FRAME_ARRAYS, *layout.EMBEDDINGS) if name not in self.names]
        if lost:
            raise StoreError(f"{place.path} has lost frames/{lost[0]}; {inventory.remedy('frames')}")
        cache = ShardCache()

        def array(name: str) -> ShardedArray:
            def check(key: str, data: bytes) -> None:
                held.check(place, f"frames/{name}/{key}", data)

            return ShardedArray(place / "frames" / name, cache, check, partial(self._knows_shard, name))

        self._arrays = dict(zip(self.names, place.map(array, self.names), strict=True))

    @property
    def num_rows(self) -> int:
        return min((array.shape[0] for array in self._arrays.values()), default=0)

    def array(self, name: str) -> ShardedArray:
        """One array; raises StoreError for an unknown name."""
        if name not in self._arrays:
            raise StoreError(self._no_array(name))
        return self._arrays[name]

    def read(self, start: int, stop: int, names: Sequence[str], whose: Callable[[], str]) -> dict[str, np.ndarray]:
        """Rows start..stop: {name: array [stop - start, ...]}, fresh arrays; `whose` names the rows in errors."""
        names = [names] if isinstance(names, str) else names
        arrays = self._snapshot.place.map(lambda name: self._read(start, stop, name, whose), names)
        return dict(zip(names, arrays, strict=True))

    def _read(self, start: int, stop: int, name: str, whose: Callable[[], str]) -> np.ndarray:
        array = self._arrays.get(name)
        if array is None:
            raise StoreError(f"{whose()}: {self._no_array(name)}")
        if stop > array.shape[0]:
            raise StoreError(f"{whose()}: frames/{name} ends before it; run precompute.py again")
        learned = name in layout.LEARNED_ARRAYS
        if learned:
            self._snapshot.check_labels()
        try:
            return array.read(start, stop)
        except Damage as e:
            if self._snapshot.inventory.complete and self._snapshot.has_changed():
                raise self._snapshot.changed() from e
            remedy = "precompute.py --refit writes it again" if learned else "restore that file from a copy"
            raise StoreError(f"{whose()}: frames/{name} cannot be read: {e}; {remedy}") from e

    def _knows_shard(self, name: str, number: int, size: int, tail: bytes) -> bool:
        """Whether a shard is the one that was written. Raises StoreError where a store without inventory has another fit
        now."""
        snapshot = self._snapshot
        if snapshot.inventory.complete or name not in layout.LEARNED_ARRAYS:
            return snapshot.inventory.knows_shard(name, number, size, tail)
        if root_attrs(snapshot.place).get("similarity") != snapshot.attrs.get("similarity"):
            raise snapshot.changed()
        return True

    def shard_damage(self, name: str, shard: int, used: np.ndarray) -> str:
        """What is wrong with a shard, by its size and its index alone; "" where nothing is.

        `used` bool [chunks of the array] marks chunks that must be there. Raises StoreError for an unknown array.
        """
        array = self.array(name)
        if (shard + 1) * array.shard_rows > array.shape[0]:
            return f"frames/{name} ends before it"
        try:
            entries = array.open_shard(shard).entries
        except Damage as e:
            return str(e)
        wanted = np.flatnonzero(used[shard * len(entries) : (shard + 1) * len(entries)]).tolist()
        lost = [k for k in wanted if entries[k] == ABSENT]
        return f"{array.folder / array.shard_key(shard)}: chunk {lost[0]} is missing" if lost else ""

    def _no_array(self, name: str) -> str:
        hint = "; precompute.py makes projections once it has real clips" if name in layout.PROJECTIONS else ""
        if name in layout.SECOND_ARRAYS:
            hint = "; an earlier release made it: a new store has it"
        if name in layout.OPTIONAL_ARRAYS:
            hint = f"; a new store made by precompute.py --arrays {name} has it"
        return f"{self._snapshot.place.path} has no frames/{name}; it has {', '.join(self.names)}{hint}"
