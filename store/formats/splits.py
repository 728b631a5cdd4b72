"""Reads a table of splits: id, split and (optional) weight of clips, CSV or Parquet, as `pipelines.manifest` writes it.

The trainer, evaluation and precompute read it in the same way: an empty split is train, and a clip that is not listed
is not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import numpy as np

from store.formats.table import read_csv, read_parquet

PARQUET = (".parquet", ".pq")
MOST_WEIGHT = 1e6
MOST_ROWS = 1_000_000  # limit for a file, if there are few clips


def read(data: bytes, name: str, num_clips: int) -> dict[str, tuple[str, float]]:
    """{id: (split, weight)} of a file with that name and content; `num_clips` bounds its size.

    Raises ValueError, whose text begins with the file's name, if it is no such table. Splits are not checked.
    """
    try:
        table = read_parquet(data) if PurePath(name).suffix.lower() in PARQUET else read_csv(data)
        if len(table) > max(MOST_ROWS, 10 * num_clips):
            raise ValueError(f"it has {len(table)} rows, the store {num_clips} clips")
    except (OSError, ValueError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{name}: cannot read the splits: {said}") from error
    missing = {"id", "split"} - set(table.columns)
    if missing:
        raise ValueError(
            f"{name} has no column {' and '.join(sorted(missing))}; it needs id, split and may have weight"
        )
    for column in ("id", "split"):
        odd = [x for x in table[column] if not isinstance(x, str | int | np.integer) and not _empty(x)]
        if odd:
            raise ValueError(f"{name}: a value of {column} is a {type(odd[0]).__name__}, it must be text")
    weights = table["weight"] if "weight" in table else np.ones(len(table))
    found: dict[str, tuple[str, float]] = {}
    for clip, split, weight in _rows(table["id"], table["split"], weights):
        if clip in found:
            raise ValueError(f"{name} lists clip {clip} more than once")
        found[clip] = ("train" if _empty(split) else str(split) or "train"), _weight(weight, clip, name)
    return found


def _rows(*columns: Any) -> Iterator[tuple[str, Any, Any]]:
    for clip, split, weight in zip(*columns, strict=True):
        yield "" if _empty(clip) else str(clip), split, weight


def _weight(value: Any, clip: str, name: str) -> float:
    try:
        number = 1.0 if _empty(value) else float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not 0 <= number < MOST_WEIGHT:
        raise ValueError(
            f"{name}: clip {clip} has weight {str(value)[:40]}; it must be 0 or more, below {MOST_WEIGHT:g}"
        )
    return number


def _empty(value: object) -> bool:
    """Whether a cell of a table is empty."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return value != value if isinstance(value, float) else isinstance(value, str) and not value
