"""Hostile checkpoints, weights, fits, detectors, stores and manifests: none may run, read or write anything, or take much.

    python -m benchmarks hostile --cases 1000 --seed 0 [--json FILE]

The files are made by `benchmarks.hostile.cases` and read in a child process (`benchmarks.hostile.child`), whose audit hook sees
every file that Python opens or changes and every program and connection that it starts. A child that dies or hangs is reported
and replaced. Peak memory is the child's highest resident set during a case, libraries included. Exit code 1 if a file did
anything that it must not.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.hostile.cases import KINDS, make
from store import output as outputs

OUTCOMES = outputs.marked("outcomes of the benchmark hostile", b'[\n {\n  "kind": ', b'"acts": ', b'"peak": ')
ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60.0  # of one case, after which the child is killed
LIMITS = {"seconds": 10.0, "peak": 1e9}  # bytes; of one case


@dataclass(frozen=True)
class Outcome:
    """One case: `what` is read, refused (by an error of a store, fit, manifest, detector or teacher, in one or two lines),
    failed (by any other error), crashed or hung; `said` is its line; `acts` are up to five things that it did outside its
    folder, and "ran" if code in it ran; `seconds` of processor time (of waiting, if it hung); `peak` resident bytes."""

    kind: str
    seed: int
    what: str
    said: str
    acts: tuple[str, ...]
    seconds: float
    peak: int

    @property
    def is_bad(self) -> bool:
        over = self.seconds > LIMITS["seconds"] or self.peak > LIMITS["peak"]
        return bool(self.acts) or over or self.what not in ("read", "refused")


class Child:
    """A process that reads cases; it is started again after a case that killed it."""

    def __init__(self, log: Path) -> None:
        self.log, self.process = log, None
        self._start()

    def _start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
        command = [sys.executable, "-c", "from benchmarks.hostile.child import child; child()"]
        pipe = subprocess.PIPE
        with self.log.open("a") as log:
            self.process: Any = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=log, text=True
            )
        assert self.process.stdout.readline() == "ready\n", self.log.read_text()[-2000:]

    def ask(self, case: dict[str, str]) -> dict[str, Any]:
        """The child's answer to a case."""
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], TIMEOUT_S)[0]:
            self.close()
            self._start()
            return {"what": "hung", "said": "", "acts": [], "seconds": TIMEOUT_S, "peak": 0}
        if line := self.process.stdout.readline():
            return json.loads(line)
        code = self._end()
        self._start()
        return {"what": "crashed", "said": f"exit code {code}", "acts": [], "seconds": 0.0, "peak": 0}

    def close(self) -> None:
        self.process.kill()
        self._end()

    def _end(self) -> int:
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait()


def run(cases: int, seed: int, template: Path, kinds: tuple[str, ...] = tuple(KINDS)) -> list[Outcome]:
    """Outcomes of `cases` cases, the kinds in turn; `template` is a valid store, which is not changed."""
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="hostile-") as scratch:
        child = Child(Path(scratch) / "log")
        try:
            for k in range(cases):
                kind, number = kinds[k % len(kinds)], seed * 1_000_000 + k
                folder, outside = Path(scratch) / "case", Path(scratch) / "outside"
                for made in (folder, outside):
                    made.mkdir()
                (outside / "secret").write_text("a value that nobody may see")
                path = make(kind, folder, outside, number, template)
                answer = child.ask({"kind": kind, "path": str(path), "folder": str(folder)})
                acts = (*answer.pop("acts"), *(["ran"] if (outside / "ran").exists() else []))
                outcomes.append(Outcome(kind, number, acts=acts, **answer))
                for made in (folder, outside):
                    shutil.rmtree(made)
        finally:
            child.close()
    return outcomes


def sound_store(path: Path) -> Path:
    """A small valid store with a fit and words, 20 chunks a shard."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from small_store import make_store

    import store

    make_store(path, {"train": 4, "val": 2}, frames=60)
    columns = {"clip": [0, 1], "start": [0.0, 0.0], "end": [1.0, 1.0], "text": ["a", "b"], "probability": [0.5, 0.5]}
    writer = store.Writer.open(path)
    writer.write_words(columns)
    writer.consolidate()
    return path


@click.command(epilog="Example: python -m benchmarks hostile --cases 1000 --seed 0")
@click.option("--cases", default=1000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--kind", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="These alone.")
@click.option("--json", "report", type=click.Path(path_type=Path), help="Write every outcome there.")
def main(cases: int, seed: int, kinds: tuple[str, ...], report: Path | None) -> None:
    """Read hostile files and print what happened with each kind."""
    if report:
        outputs.check([outputs.Output(report, OUTCOMES)])
    with tempfile.TemporaryDirectory(prefix="hostile-store-") as folder:
        outcomes = run(cases, seed, sound_store(Path(folder) / "s.zarr"), kinds or tuple(KINDS))
    for kind in KINDS:
        mine = [o for o in outcomes if o.kind == kind]
        if mine:
            counts = ", ".join(f"{n} {what}" for what, n in sorted(Counter(o.what for o in mine).items()))
            peak, slowest = max(o.peak for o in mine) / 1e6, max(o.seconds for o in mine)
            acted = sum(bool(o.acts) for o in mine)
            click.echo(
                f"{kind:>10}: {len(mine)} files: {counts}; {acted} acted; peak {peak:.0f} MB, slowest {slowest:.1f} s"
            )
    bad = [o for o in outcomes if o.is_bad]
    for o in bad[:40]:
        click.echo(f"{o.kind} {o.seed}: {o.what} {o.seconds:.1f} s {o.peak / 1e6:.0f} MB {o.acts} {o.said}")
    if report:
        outputs.write(report, json.dumps([asdict(o) for o in outcomes], indent=1).encode())
    click.echo(f"{len(outcomes)} hostile files, {len(bad)} of them violated a rule")
    sys.exit(1 if bad else 0)
