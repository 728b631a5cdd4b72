"""Seeded damage to the files of a store (`damaged_runs` does it), and what became of whoever read it.

An outcome is REFUSED (one line), SAME (every number is the one that was written) or a sentence that says what went wrong in
silence. A child reads, so that a crash is an outcome as well.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
from damaged_runs import REFUSED, SAME

import store
from pipelines.errors import UsageError
from pipelines.tables import kept
from store.arrays import inventory
from store.verify import verify

TIMEOUT_S = 60
PAIRS = 3  # clips whose every pair is compared


def numbers(path: Path) -> list[np.ndarray]:
    """Every number that a store gives: tables, frames, pairs, words, attributes."""
    reader = store.open(path)
    found = [reader.clips[name] for name in sorted(reader.clips)]
    for i in np.flatnonzero(reader.clips["done"] == 1).tolist():
        got = reader.frames(i, 0, int(reader.clips["length"][i]), reader.names)
        found += [got[name] for name in reader.names]
        found.append(np.array([repr(reader.words(i))] if reader.has_words else []))
    first = np.flatnonzero(reader.clips["done"] == 1)[:PAIRS].tolist()
    if reader.fit is not None:
        found += [reader.pair_similarity(i, j, window=w) for i in first for j in first for w in (5, 25, "clip")]
    return [
        *found,
        np.array([repr(sorted(reader.attrs.items(), key=str)), repr(reader.names), str(reader.fit is None)]),
    ]


def outcome(path: Path, key: str, wanted: list[np.ndarray], was_changed: bool) -> str:
    """What reading the store came to whose file `key` was damaged; `wanted` is what it gave before."""
    try:
        got = numbers(path)
    except store.StoreError as error:
        return REFUSED if "\n" not in str(error) else f"no line for a person: {error!r}"
    if len(got) != len(wanted) or not all(_equal(a, b) for a, b in zip(got, wanted, strict=True)):
        return "another number was read"
    noticed = bool(verify(store.open(path)))
    if was_changed and (inventory.is_covered(key) or key == inventory.FILE) and not noticed:
        return "verify says that all is well"
    if key in inventory.TABLES:
        return _tables(path)
    return SAME


def _tables(path: Path) -> str:
    """The driver's reading of ledger and manifest, with no corpus given."""
    reader = store.open(path)
    try:
        tables = kept.read(reader, [])
    except UsageError as error:
        return REFUSED if "\n" not in str(error) else f"no line for a person: {error!r}"
    done = {str(i) for i, d in zip(reader.clips["id"], reader.clips["done"], strict=True) if d}
    told = {i for i, entry in tables.entries.items() if entry.stage == "done"}
    return REFUSED if tables.anew and told == done else "a damaged table was believed"


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))


def in_child(act: Callable[[], str]) -> str:
    """The answer of `act` in a child process, or how that died."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            said = act()
        except BaseException as error:
            said = f"{type(error).__name__} came through: {traceback.format_exc().splitlines()[-1]}"
        os.write(writing, said.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        said = answer.read().decode()
    _, status = os.waitpid(child, 0)
    return said if said and status == 0 else f"the process died with status {status}"
