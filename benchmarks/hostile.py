"""Hostile checkpoints, weights, fits, detectors, stores and manifests: none may run, read or write anything, or take much.

    python -m benchmarks.hostile --cases 1000 --seed 0 [--json FILE]

The files are made here (`hostile_files`) and read in a child, whose audit hook sees every file that Python opens or changes and
every program and connection that it starts. A child that dies or hangs is told of and replaced. Peak memory is the highest
resident set of the child within a case, its libraries included. Exit code 1 where anything happened that must not.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks import hostile_files
from store import output as outputs

OUTCOMES = outputs.marked("outcomes of benchmarks.hostile", b'[\n {\n  "kind": ', b'"acts": ', b'"peak": ')
ROOT = Path(__file__).parent.parent
TIMEOUT_S = 60.0  # of one case, after which the child is killed
MEMORY = 8 << 30  # bytes of address space of a child: a machine must outlast the test
LIMITS = {"seconds": 10.0, "peak": 1e9}  # bytes; of one case


@dataclass(frozen=True)
class Outcome:
    """One case: `what` is read, refused, failed (an error that is none of ours), crashed or hung; `said` is its line; `acts`
    are what it did outside its folder; processor seconds; peak resident bytes."""

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


# -- the child -------------------------------------------------------------------------------------------------------------


def child() -> None:
    """Read cases from standard input, one JSON a line, and answer each with one line."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    _warm()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints goes elsewhere
    watch = _Watch()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        case = json.loads(line)
        path = Path(case["path"])
        _reset_peak()
        watch.begin(Path(case["folder"]))
        began = time.process_time()
        try:
            what, said = "read", _read(case["kind"], path)
        except Exception as error:
            what, said = _judged(error)
        seconds = time.process_time() - began
        watch.end()
        answer = {"what": what, "said": said[:300], "acts": watch.acts[:5], "seconds": seconds, "peak": _peak()}
        print(json.dumps(answer), file=answers, flush=True)


def _warm() -> None:
    """Import what reading needs, so that its files are not taken for the case's."""
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import torch
    from safetensors.torch import load_file  # noqa: F401

    import store.inspect  # noqa: F401
    from pipelines.corpora import manifest  # noqa: F401
    from student.models import (
        build,
        weights,  # noqa: F401
    )
    from teachers.files import arrays  # noqa: F401
    from teachers.files import checkpoint as theirs  # noqa: F401

    build("lite")
    torch.ones(3).isfinite().all()


def _read(kind: str, path: Path) -> str:
    """What a user's command does with such a file; the answer says what was found."""
    import numpy as np
    import torch

    import store
    from pipelines.corpora import manifest
    from store import inspect
    from store.similarity import fitfile
    from student import checkpoint
    from student.models import weights
    from teachers.files import arrays
    from teachers.files import checkpoint as theirs

    if kind == "checkpoint":
        found = len(theirs.read(path))
        weights.read(path)
        return f"{found} parts"
    if kind == "npz":
        try:
            return f"{len(arrays.load(path).clips)} clips"
        except arrays.ArraysError:
            return f"{len(weights.read(path))} weights"
    if kind == "fit":
        from pipelines.labels.projection import maps

        fit = fitfile.load(path)[0]
        maps(fit)
        return fit.kind
    if kind == "detector":
        model, about = checkpoint.load_model(path)
        if not all(torch.isfinite(value).all() for value in model.state_dict().values()):
            raise AssertionError("weights that are not finite were taken")
        return str(about["model"])
    if kind == "manifest":
        return f"{len(manifest.load(f'csv:{path}'))} rows"
    reader = store.open(path)
    json.dumps(inspect.summary(reader))
    inspect.verify(reader)
    reader.to_pandas()
    for i in range(len(reader)):
        if reader.clip(i).done:
            reader.frames(i, 0, min(reader.clip(i).length, 75), reader.names)
            if reader.fit is not None:
                np.isfinite(reader.pair_similarity(i, i)).all()
    return f"{len(reader)} clips"


def _judged(error: Exception) -> tuple[str, str]:
    from pipelines.corpora.fields import ManifestError
    from store import StoreError
    from student.checkpoint import CheckpointError
    from teachers import TeacherError

    said = f"{type(error).__name__}: {error}"
    try:
        said.encode()
    except UnicodeEncodeError:
        return "failed", f"no terminal can show it: {said!a}"
    if not isinstance(error, ManifestError | StoreError | CheckpointError | TeacherError):
        return "failed", said
    return ("refused", said) if said.count("\n") <= 1 else ("failed", f"several lines: {said}")


class _Watch:
    """What the interpreter does between `begin` and `end` that reaches outside a folder."""

    STARTS = (
        "subprocess.",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.fork",
        "socket.connect",
        "socket.bind",
        "ctypes.dlopen",
    )
    CHANGES = (
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.mkdir",
        "os.truncate",
        "os.link",
        "os.symlink",
        "os.chmod",
        "shutil.rmtree",
    )

    def __init__(self) -> None:
        self.folder: str | None = None
        self.acts: list[str] = []
        self.code = tuple(os.path.realpath(p) for p in {sys.prefix, sys.base_prefix, str(ROOT), "/proc/self", "/sys"})
        sys.addaudithook(self._hook)

    def begin(self, folder: Path) -> None:
        self.acts = []
        self.environment = dict(os.environ)
        self.folder = os.path.realpath(folder)

    def end(self) -> None:
        self.folder = None
        if dict(os.environ) != self.environment:
            self.acts.append("changed the environment")

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event.startswith(self.STARTS):
            self.acts.append(f"{event} {args[:1]!r}")
        elif event == "open" or event.startswith(self.CHANGES):
            if not isinstance(args[0], str | bytes):
                return
            path = os.path.realpath(os.fsdecode(args[0]))
            writes = event != "open" or (
                len(args) > 2 and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
            )
            if not f"{path}/".startswith(f"{self.folder}/") and (writes or not path.startswith(self.code)):
                self.acts.append(f"{event} {path}")


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


# -- the parent ------------------------------------------------------------------------------------------------------------


class Child:
    """A process that reads cases; started anew after one that killed it."""

    def __init__(self, log: Path) -> None:
        self.log, self.process = log, None
        self._start()

    def _start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
        command = [sys.executable, "-c", "from benchmarks.hostile import child; child()"]
        self.process: Any = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log.open("a"),
            text=True,
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
        code = self.process.wait()
        self._start()
        return {"what": "crashed", "said": f"exit code {code}", "acts": [], "seconds": 0.0, "peak": 0}

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def run(cases: int, seed: int, template: Path, kinds: tuple[str, ...] = tuple(hostile_files.KINDS)) -> list[Outcome]:
    """Outcomes of so many cases of all kinds in turn; `template` is a sound store, which stays as it is."""
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
                path = hostile_files.make(kind, folder, outside, number, template)
                answer = child.ask({"kind": kind, "path": str(path), "folder": str(folder)})
                acts = (*answer.pop("acts"), *(["ran"] if (outside / "ran").exists() else []))
                outcomes.append(Outcome(kind, number, acts=acts, **answer))
                for made in (folder, outside):
                    shutil.rmtree(made)
        finally:
            child.close()
    return outcomes


def sound_store(path: Path) -> Path:
    """A small store with a fit and words, 20 chunks a shard."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from small_store import make_store

    import store

    make_store(path, {"train": 4, "val": 2}, frames=60)
    columns = {"clip": [0, 1], "start": [0.0, 0.0], "end": [1.0, 1.0], "text": ["a", "b"], "probability": [0.5, 0.5]}
    writer = store.Writer.open(path)
    writer.write_words(columns)
    writer.consolidate()
    return path


@click.command()
@click.option("--cases", default=1000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--kind", "kinds", multiple=True, type=click.Choice(list(hostile_files.KINDS)), help="These alone.")
@click.option("--json", "report", type=click.Path(path_type=Path), help="Write every outcome there.")
def main(cases: int, seed: int, kinds: tuple[str, ...], report: Path | None) -> None:
    """Read hostile files and print what became of them. Example: see the module."""
    if report:
        outputs.check([outputs.Output(report, OUTCOMES)])
    with tempfile.TemporaryDirectory(prefix="hostile-store-") as folder:
        outcomes = run(cases, seed, sound_store(Path(folder) / "s.zarr"), kinds or tuple(hostile_files.KINDS))
    for kind in hostile_files.KINDS:
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
    click.echo(f"{len(outcomes)} hostile files, {len(bad)} that did what they must not")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
