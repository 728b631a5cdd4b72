"""A child that is watched: what it opens, runs, takes of memory and of time."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.hostile import LIMITS, ROOT

TIMEOUT_S = 60.0  # of one case, after which the child is killed
MEMORY = 8 << 30  # bytes of address space of a child: a machine must outlast the test


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
