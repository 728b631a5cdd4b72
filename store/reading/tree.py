"""A store as an xarray tree, its frames read when they are used, by the reader's own checked way: xarray's own, through Zarr,
gives zeros for what is missing and trusts what chunks say of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from xarray import Dataset, DataTree, Variable
from xarray.backends import BackendArray
from xarray.core import indexing

from store import layout

if TYPE_CHECKING:
    from store.reader import Reader


def tree_of(reader: Reader) -> DataTree:
    """`clips` and `frames`, and `words` where there are any."""
    groups = {"/": Dataset(attrs=reader.attrs), "/clips": _table(reader.clips, "clip")}
    groups["/frames"] = Dataset({name: _frames(reader, name) for name in reader.names})
    if reader.has_words:
        groups["/words"] = _table(reader.words_table, "word")
    return DataTree.from_dict(groups)


def _table(columns: dict[str, np.ndarray], axis: str) -> Dataset:
    return Dataset({name: ((axis,), column) for name, column in columns.items()})


def _frames(reader: Reader, name: str) -> Variable:
    row = reader.array(name).shape[1:]
    axes = layout.AXES.get(name, tuple(f"{name}_{k}" for k in range(len(row))))
    return Variable(("frame", *axes), indexing.LazilyIndexedArray(_Rows(reader, name)))


class _Rows(BackendArray):
    """One frame array; raises StoreError, when it is used, for rows that are missing or damaged."""

    def __init__(self, reader: Reader, name: str):
        self.reader, self.name = reader, name
        array = reader.array(name)
        self.shape, self.dtype = (reader.num_rows, *array.shape[1:]), array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._rows)

    def _rows(self, key: tuple[int | slice, ...]) -> np.ndarray:
        wanted = np.arange(self.shape[0])[key[0]]
        if np.size(wanted) == 0:
            return np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *key[1:])]
        first = int(np.min(wanted))
        found = self.reader.rows(first, int(np.max(wanted)) + 1, [self.name])[self.name]
        rest = key[1:] if np.ndim(wanted) == 0 else (slice(None), *key[1:])
        return found[wanted - first][rest]
