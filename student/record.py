"""What a run writes down beside its weights: which store and versions its figures refer to, and the lines of its log."""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import resource
import time
from pathlib import Path
from typing import IO

import accelerate
import numpy as np
import torch

from store import Reader

from .config import ConfigError

LOCK_WAIT_S = 20.0  # a run whose launcher was killed needs a moment to save and go


def store_identity(reader: Reader) -> dict[str, str]:
    """What figures refer to: a hash of the store's attributes and one of its clips (ids, lengths, labels, which are done)."""
    attrs = hashlib.sha256(json.dumps(reader.attrs, sort_keys=True, default=str).encode()).hexdigest()
    c = reader.clips
    table = json.dumps([[str(x) for x in c["id"]], *(np.asarray(c[k]).tolist() for k in ("length", "label", "done"))])
    return {"path": str(reader.path), "attrs": attrs[:16], "clips": hashlib.sha256(table.encode()).hexdigest()[:16]}


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "numpy": np.__version__,
    }


def keep_lines(file: Path, step: int) -> None:
    """Drop the lines that steps after `step` wrote: they are written again."""
    if file.is_file():
        kept = [line for line in file.read_text().splitlines() if line and json.loads(line)["step"] <= step]
        file.write_text("".join(line + "\n" for line in kept))


def peak_memory() -> dict[str, int]:
    """Largest resident memory so far, MiB: of this process, and of the largest worker that has ended."""
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"process": round(own / 1024), "largest_worker": round(children / 1024)}


def claim(folder: Path) -> IO[str]:
    """Make the output folder and lock it; the lock lasts until the file is closed or the process dies.

    Raises ConfigError where another run still has it after a moment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = open(folder / ".lock", "w")  # noqa: SIM115 - held until the process ends, freed by its death
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError:
            if time.monotonic() > deadline:
                lock.close()
                raise ConfigError(f"another run writes to {folder}; wait for it or choose another --output") from None
            time.sleep(0.5)
