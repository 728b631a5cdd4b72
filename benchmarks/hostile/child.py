"""The process that reads hostile files, as users' commands do, and reports what it did outside the file's folder.

It is a process of its own because a case may kill it, hang it or take all its memory. An audit hook sees every file that
Python opens or changes and every program and connection that it starts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MEMORY = 8 << 30  # bytes of address space, to protect the machine


def child() -> None:
    """Read cases from standard input, one JSON a line, and answer each with one line."""
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.dont_write_bytecode = True  # of modules that are first imported while a case runs
    _warm()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints goes elsewhere
    watch = Watch()
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
    """Import what reading needs, so that opening these modules is not counted as an act of the case."""
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
        model, header = checkpoint.load_model(path)
        if not all(torch.isfinite(value).all() for value in model.state_dict().values()):
            raise AssertionError("weights that are not finite were taken")
        return header.model
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


class Watch:
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
