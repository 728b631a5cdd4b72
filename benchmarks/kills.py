"""What a kill costs: the whole job killed at random moments and run again, until the store is complete.

    python -m benchmarks.kills --corpus grid:/data/grid_s1

Each time driver, Ray and all workers die at once (SIGKILL to the driver, which Ray's local processes do not outlive), at some
moment of the time that a calm run takes. Workers log each batch that they begin; so it is known which were begun anew although
they were staged (none may be), how many clips a kill lost, and how much was computed in all. The store is compared with a calm
run's. With
--refits, a refit of both stores to another kind of similarity follows, that of one of them under as many kills.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

import store
from benchmarks.same import differences, faults
from store import staging

ROOT = Path(__file__).parent.parent
BEGINS = re.compile(r"face (\S+): begins (\d+) clips")


def begun(logs: Path) -> dict[str, int]:
    """Batches that face workers began in a session: {name: clips}."""
    found = {}
    for file in logs.rglob("worker-*.err"):
        found.update({name: int(clips) for name, clips in BEGINS.findall(file.read_text(errors="replace"))})
    return found


def kept(path: Path, names: set[str]) -> set[str]:
    """Those of the batches `names` that the next run need not compute: staged whole, or done."""
    if not (path / "zarr.json").exists():
        return set()
    staged, done = staging.staged(path), store.open(path).clips["done"]
    return {name for name in names if name in staged or done[int(name.split("-")[1])]}


@click.command()
@click.option("--corpus", required=True, metavar="KIND:ROOT")
@click.option("--clips", default=400, show_default=True)
@click.option("--kills", default=20, show_default=True)
@click.option("--refits", default=0, show_default=True, help="Kills of a refit, after that.")
@click.option("--within", type=float, help="Seconds from the start in which a kill falls.  [default: a calm run's]")
@click.option("--calm", type=click.Path(path_type=Path), help="Store of a calm run of the same clips.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where stores and logs go.  [default: a temporary folder]"
)
def main(
    corpus: str,
    clips: int,
    kills: int,
    refits: int,
    within: float | None,
    calm: Path | None,
    seed: int,
    folder: Path | None,
) -> None:
    """Run it and print what was lost. Example: see the module."""
    folder = folder or Path(tempfile.mkdtemp(prefix="kills-"))
    command = [sys.executable, str(ROOT / "precompute.py"), "--corpus", corpus, "--limit", str(clips)]
    command += ["--similarity", "cca"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("RAY_ADDRESS", None)
    if calm is None:
        calm = folder / "calm.zarr"
        took = timed([*command, "--store", str(calm)], environment)
    else:
        took = 25.0
    dice, path = random.Random(seed), folder / "killed.zarr"
    total, lost = 0, []
    seen: set[str] = set()  # batches begun so far,
    safe: set[str] = set()  # staged or done at an earlier kill,
    again: set[str] = set()  # and begun all the same
    for k in range(kills + 1):
        session = folder / f"r{k}"
        session.mkdir(parents=True)
        code = killed(
            [*command, "--store", str(path)],
            None if k == kills else dice.uniform(0, within or took),
            session,
            environment,
        )
        now = begun(session)
        again |= safe & set(now)
        seen |= set(now)
        safe = kept(path, seen)
        total += sum(now.values())
        if k < kills:
            lost.append(sum(n for name, n in now.items() if name not in safe))
            click.echo(f"kill {k + 1}: {len(safe)} batches staged or done, {lost[-1]} clips lost")
    found = [*faults(path), *differences(calm, path)]
    click.echo(
        f"{kills} kills: {len(again)} staged batches computed again; clips lost a kill: mean {sum(lost) / len(lost):.1f}, "
        f"most {max(lost)}; {total} clips were begun for {clips}, {total / clips:.2f} of a calm run's work"
    )
    for line in found:
        click.echo(line)
    click.echo(f"{len(found)} differences" if found else "equal: every array, every value, every ledger row")
    if refits:
        other = folder / "refit.zarr"  # the calm store stays as it is
        shutil.copytree(calm, other)
        refit = [*command, "--refit", "--similarity", "contrast", "--store"]
        took = timed([*refit, str(other)], environment)
        for k in range(refits + 1):
            session = folder / f"f{k}"
            session.mkdir()
            after = None if k == refits else dice.uniform(0, within or took)
            code = killed([*refit, str(path)], after, session, environment)
        differ = [*faults(path), *differences(other, path)]
        for line in differ:
            click.echo(line)
        if not differences(calm, other):
            differ.append("the other kind gave the same numbers, so this shows nothing")
        click.echo(f"{refits} kills of a refit: {f'{len(differ)} differences' if differ else 'equal'}")
        found += differ
    sys.exit(1 if found or again or code else 0)


def timed(command: list[str], environment: dict[str, str]) -> float:
    """Seconds that a run of the command takes; raises CalledProcessError where it fails."""
    begun = time.monotonic()
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    return time.monotonic() - begun


def killed(command: list[str], after: float | None, session: Path, environment: dict[str, str]) -> int:
    """Run the command in a Ray session of that folder, SIGKILL after so many seconds; its exit code, 0 where it was killed."""
    with (session.parent / "driver.log").open("a") as log:
        run = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=ROOT, env={**environment, "RAY_TMPDIR": str(session)}
        )
        try:
            return run.wait(after)
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()
            wait_for_end(session)
            return 0


def wait_for_end(session: Path) -> None:
    """Until no process of that Ray session runs any more."""
    import psutil

    while any(str(session) in " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])):
        time.sleep(0.1)


if __name__ == "__main__":
    main()
