"""Compares two stores: every array, value by value, and one ledger row per input.

    python -m benchmarks same A.zarr B.zarr

Attributes (command, commit) and the ledger's times and worker names may differ; nothing else may. Exit code 1 where it does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import numpy as np
import zarr

from pipelines.tables import ledger


def differences(a: Path, b: Path) -> list[str]:
    """One line for everything that is not the same in two stores; empty where they are equal."""
    one, two = (_arrays(path) for path in (a, b))
    found = [f"{name} is in {a if name in one else b} alone" for name in sorted(set(one) ^ set(two))]
    for name in sorted(set(one) & set(two)):
        x, y = np.asarray(one[name][...]), np.asarray(two[name][...])
        if x.shape != y.shape or x.dtype != y.dtype:
            found.append(f"{name}: {x.dtype} {x.shape} and {y.dtype} {y.shape}")
        elif not np.array_equal(x, y, equal_nan=x.dtype.kind == "f"):
            rows = np.unique(np.nonzero(~((x == y) | ((x != x) & (y != y))))[0]) if x.ndim else []
            found.append(f"{name} differs in {len(rows)} rows, the first is {rows[0] if len(rows) else 0}")
    old, new = ledger.read(a), ledger.read(b)
    if list(old) != list(new):
        found.append(f"ledgers: {len(old)} and {len(new)} inputs, not the same ones in the same order")
    for clip in sorted(set(old) & set(new)):
        if (old[clip].stage, old[clip].reason) != (new[clip].stage, new[clip].reason):
            found.append(
                f"ledger of {clip}: {old[clip].stage}/{old[clip].reason} and {new[clip].stage}/{new[clip].reason}"
            )
    return found


def faults(path: Path) -> list[str]:
    """What is wrong with a store by itself: inputs twice or without a ledger row, done clips that the ledger calls failed."""
    arrays = _arrays(path)
    ids, done = (np.asarray(arrays[f"clips/{name}"][...]).tolist() for name in ("id", "done"))
    entries = ledger.read(path)
    found = [f"{len(ids) - len(set(ids))} clips are in the table twice"] if len(set(ids)) < len(ids) else []
    found += [f"{clip} has no ledger row" for clip in ids if clip not in entries]
    for clip, is_done in zip(ids, done, strict=True):
        if clip in entries and bool(is_done) == bool(entries[clip].reason):
            found.append(f"{clip}: done is {is_done}, the ledger says {entries[clip].reason or 'done'}")
    return found


def _arrays(path: Path) -> dict[str, zarr.Array]:
    """Every array below a store's folder, by its path there."""
    files = sorted(path.rglob("zarr.json"))
    folders = [f.parent for f in files if json.loads(f.read_text("utf-8"))["node_type"] == "array"]
    return {folder.relative_to(path).as_posix(): zarr.open_array(folder, mode="r") for folder in folders}


@click.command(epilog="Example: python -m benchmarks same A.zarr B.zarr")
@click.argument("a", type=click.Path(exists=True, path_type=Path))
@click.argument("b", type=click.Path(exists=True, path_type=Path))
def main(a: Path, b: Path) -> None:
    """Compare two stores."""
    found = [*(f"{path}: {fault}" for path in (a, b) for fault in faults(path)), *differences(a, b)]
    for line in found:
        click.echo(line)
    click.echo(f"{len(found)} differences" if found else "equal: every array, every value, every ledger row")
    sys.exit(1 if found else 0)
