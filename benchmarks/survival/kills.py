"""Cost of a kill: the whole job is killed at random moments and run again, until the store is complete.

    python -m benchmarks kills --corpus grid:/data/grid_s1

Each time driver, Ray and all workers die at once (SIGKILL to the driver, which Ray's local processes do not outlive), at a
random moment within the time that a calm run takes. Workers log each batch that they begin. The log therefore tells which
batches were computed again although they were staged (there must be none), how many clips each kill lost, and how much was
computed in all.
The store is compared with that of a calm run. With --refits, both stores are then refitted to another kind of similarity, one
of them under that many kills.
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

import store
from benchmarks.survival.same import differences, faults
from store import staging

ROOT = Path(__file__).parents[2]
UNTIMED_S = 25.0  # taken for the time of a calm run where --calm gives its store
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


@dataclass(frozen=True)
class Kills:
    """Runs of precompute.py that are killed at random moments, each in a Ray session of its own below `folder`."""

    folder: Path
    command: list[str]  # precompute.py with its corpus, without --store
    dice: random.Random
    within: float  # seconds from the start in which a kill falls

    def moments(self, kills: int) -> Iterator[float | None]:
        """Seconds after which each run is killed; None for the last run, which ends by itself."""
        yield from (self.dice.uniform(0, self.within) for _ in range(kills))
        yield None


@click.command(epilog="Example: python -m benchmarks kills --corpus grid:/data/grid_s1")
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
    """Kill runs of precompute.py and print how much work was lost and whether the store differs from a calm run's."""
    folder = folder or Path(tempfile.mkdtemp(prefix="kills-"))
    command = [sys.executable, str(ROOT / "precompute.py"), "--corpus", corpus, "--limit", str(clips)]
    command += ["--similarity", "cca"]
    took = UNTIMED_S
    if calm is None:
        calm = folder / "calm.zarr"
        took = timed([*command, "--store", str(calm)])
    dice = random.Random(seed)
    path = folder / "killed.zarr"
    again, code = kill_job(Kills(folder, command, dice, within or took), path, kills, clips)
    found = [*faults(path), *differences(calm, path)]
    for line in found:
        click.echo(line)
    click.echo(f"{len(found)} differences" if found else "equal: every array, every value, every ledger row")
    if refits:
        other = folder / "refit.zarr"  # the calm store stays as it is
        shutil.copytree(calm, other)
        command += ["--refit", "--similarity", "contrast"]
        took = timed([*command, "--store", str(other)])
        more, code = kill_refit(Kills(folder, command, dice, within or took), path, refits, calm, other)
        found += more
    sys.exit(1 if found or again or code else 0)


def kill_job(job: Kills, path: Path, kills: int, clips: int) -> tuple[set[str], int]:
    """Kill a job `kills` times, then let it end. Returns the batches that were computed again although they were staged, and
    the last run's exit code."""
    total, lost, code = 0, [0], 0
    seen: set[str] = set()  # batches begun so far,
    safe: set[str] = set()  # staged or done at an earlier kill,
    again: set[str] = set()  # and begun all the same
    for k, after in enumerate(job.moments(kills)):
        session = job.folder / f"r{k}"
        session.mkdir(parents=True)
        code = killed([*job.command, "--store", str(path)], after, session)
        now = begun(session)
        again |= safe & set(now)
        seen |= set(now)
        safe = kept(path, seen)
        total += sum(now.values())
        if after is not None:
            lost.append(sum(n for name, n in now.items() if name not in safe))
            click.echo(f"kill {k + 1}: {len(safe)} batches staged or done, {lost[-1]} clips lost")
    click.echo(
        f"{kills} kills: {len(again)} staged batches computed again; clips lost a kill: mean {sum(lost) / max(kills, 1):.1f}, "
        f"most {max(lost)}; {total} clips were begun for {clips}, {total / clips:.2f} of a calm run's work"
    )
    return again, code


def kill_refit(job: Kills, path: Path, kills: int, calm: Path, refitted: Path) -> tuple[list[str], int]:
    """The same for a refit of `path`. Returns how it differs from the store `refitted`, which was refitted calmly after it was
    copied from `calm`, and the last run's exit code."""
    code = 0
    for k, after in enumerate(job.moments(kills)):
        session = job.folder / f"f{k}"
        session.mkdir()
        code = killed([*job.command, "--store", str(path)], after, session)
    found = [*faults(path), *differences(refitted, path)]
    for line in found:
        click.echo(line)
    if not differences(calm, refitted):
        found.append("the other kind gave the same numbers, so this shows nothing")
    click.echo(f"{kills} kills of a refit: {f'{len(found)} differences' if found else 'equal'}")
    return found, code


def environment() -> dict[str, str]:
    """Of a run: this project on the path, and a Ray of its own rather than one that runs already."""
    return {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"PYTHONPATH": os.pathsep.join(sys.path)}


def timed(command: list[str]) -> float:
    """Seconds that a run of the command takes; raises CalledProcessError where it fails."""
    start = time.monotonic()
    subprocess.run(command, check=True, cwd=ROOT, env=environment())
    return time.monotonic() - start


def killed(command: list[str], after: float | None, session: Path) -> int:
    """Run the command, its Ray session in that folder, and kill it after that many seconds; its exit code, or 0 if killed."""
    with (session.parent / "driver.log").open("a") as log:
        run = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=ROOT, env={**environment(), "RAY_TMPDIR": str(session)}
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
