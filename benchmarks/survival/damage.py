"""Damage to stores, runs and fits: bits flipped, files cut or gone; none may change a number or a verdict without an error.

    python -m benchmarks damage --store /data/grid.zarr --run runs/grid --count 1000 --seed 0

Copies both, damages one file at a time, in turn and seeded, reads everything in a child process and restores the file.
Prints the outcomes for each kind of file. Exit code 1 if a number changed without an error, a child died, or an error was not
one line.
"""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "support"))  # whose tests damage the same way

import damaged_runs
import damaged_stores
from damaged_runs import REFUSED, SAME

Judge = Callable[[Path, bool], str]  # of a damaged file, and whether its bytes differ


def store_judge(root: Path) -> Judge:
    """Reads a store."""
    wanted = damaged_stores.numbers(root)
    return lambda file, changed: damaged_stores.outcome(root, file.relative_to(root).as_posix(), wanted, changed)


def run_judge(run: Path) -> Judge:
    """Loads a run's detector, and its newest checkpoint as a resume does."""
    from student import checkpoint, run_state

    model, header = checkpoint.load_model(run)
    weights = model.state_dict()
    newest = run_state.checkpoints(run)[-1]
    options, ema = header.options, float(header.config.get("ema", 0) or 0)

    def state() -> tuple[dict, dict]:
        fresh = damaged_runs.fresh(ema, **options)
        told = run_state.load_state(newest, fresh)
        return damaged_runs.parts(*fresh), told

    wanted, told = state()

    def judge(file: Path, changed: bool) -> str:
        if newest in file.parents:
            try:
                got, said = state()
            except checkpoint.CheckpointError as error:
                return REFUSED if "\n" not in str(error) else f"no line for a person: {error!r}"
            same = said == told and damaged_runs._same(wanted, got)
            return SAME if same else "a state was loaded that is another"
        return damaged_runs.detector_outcome(run, weights, header)

    return judge


def fit_judge(file: Path) -> Judge:
    """Reads a fit's file."""
    from store import StoreError
    from store.similarity import fitfile

    def arrays() -> list[np.ndarray]:
        fit, teachers, note = fitfile.load(file)
        tree = fit.to_arrays()
        kept = [tree[name] for name in sorted(tree) if isinstance(tree[name], np.ndarray)]
        return [*kept, *fit.network.values(), np.array([repr(fit.calibration), repr(teachers), repr(note)])]

    wanted = arrays()

    def judge(_: Path, changed: bool) -> str:
        try:
            got = arrays()
        except StoreError as error:
            return REFUSED if "\n" not in str(error) else f"no line for a person: {error!r}"
        return SAME if all(map(damaged_stores._equal, got, wanted)) else "a fit was loaded that is another"

    return judge


def kind_of(file: Path, root: Path) -> str:
    """The row of the table that a file belongs to."""
    parts = file.relative_to(root).parts
    if root.suffix == ".npz" or len(parts) < 2:
        return parts[0] if parts else root.name
    if parts[0].startswith("checkpoint-"):
        return f"checkpoint/{parts[-1]}"
    return f"{parts[0]}/{'zarr.json' if parts[-1] == 'zarr.json' else 'chunks'}"


@click.command(
    epilog="Example: python -m benchmarks damage --store /data/grid.zarr --run runs/grid --count 1000 --seed 0"
)
@click.option(
    "--store", "stores", type=click.Path(path_type=Path, exists=True), help="A store with a fit; it is copied."
)
@click.option(
    "--run", "runs", type=click.Path(path_type=Path, exists=True), help="A run with a checkpoint; it is copied."
)
@click.option("--count", default=1000, show_default=True, help="Damages in all.")
@click.option("--seed", default=0, show_default=True)
def main(stores: Path | None, runs: Path | None, count: int, seed: int) -> None:
    """Damage files one at a time and report the result of reading them."""
    import torch

    from store.similarity import fitfile

    torch.set_num_threads(1)  # children are forked, and a pool of threads would not come along
    logging.disable(logging.WARNING)
    bad: list[str] = []
    table: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="concord-damage-") as scratch:
        roots: list[tuple[str, Path, Callable[[Path], Judge], float]] = []
        for name, path, make, share in (("store", stores, store_judge, 0.6), ("run", runs, run_judge, 0.3)):
            if path:
                shutil.copytree(path, Path(scratch) / name, symlinks=True)
                roots.append((name, Path(scratch) / name, make, share))
        (Path(scratch) / "fit").mkdir()
        shutil.copy(fitfile.DEFAULT, Path(scratch) / "fit/fit.npz")
        roots.append(("fit", Path(scratch) / "fit", lambda folder: fit_judge(folder / "fit.npz"), 0.1))
        whole = sum(share for *_, share in roots)
        for name, root, make, share in roots:
            judge = make(root)
            for file, kind, dice in damaged_runs.plan(root, seed, round(count * share / whole)):
                before = file.read_bytes()
                with damaged_runs.damaged(file, kind, dice) as what:
                    changed = not file.exists() or file.read_bytes() != before
                    came = damaged_stores.in_child(lambda f=file, c=changed, judge=judge: judge(f, c))
                if came not in (REFUSED, SAME):
                    bad.append(f"{name}/{file.relative_to(root)}: {what}: {came}")
                table[name, kind_of(file, root)][came if came in (REFUSED, SAME) else "BAD"] += 1
    click.echo(f"{'file':44} {'damages':>8} {'refused':>8} {'harmless':>9} {'bad':>5}")
    for (name, kind), seen in sorted(table.items()):
        click.echo(f"{name + ' ' + kind:44} {seen.total():8} {seen[REFUSED]:8} {seen[SAME]:9} {seen['BAD']:5}")
    total = sum(table.values(), Counter())
    click.echo(f"{'all':44} {total.total():8} {total[REFUSED]:8} {total[SAME]:9} {total['BAD']:5}")
    click.echo(f"seed {seed}, {time.perf_counter() - begun:.0f} s")
    for text in bad[:40]:
        click.echo(f"bad: {text}")
    sys.exit(1 if bad else 0)
