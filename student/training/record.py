"""What a run writes down beside its weights: which store and versions its figures refer to, and the lines of its log."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import platform
import resource
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import accelerate
import numpy as np
import torch

from concord import plain_json
from concord.files import write
from store import Reader
from student.checkpoint import MODEL_FILE
from student.config import ConfigError, TrainConfig, differences
from student.run_state import PREFIX, checkpoints

log = logging.getLogger(__name__)

LOCK_FILE = ".concord-run.lock"
WRITTEN = (
    "config.json",
    "metrics.jsonl",
    "results.json",
    MODEL_FILE,
    "MODEL_CARD.md",
    "tracking",
)  # beside checkpoints
LOCK_WAIT_S = 20.0  # a run whose launcher was killed needs a moment to save and go


def store_identity(reader: Reader) -> dict[str, str]:
    """What figures refer to: hashes of the store's attributes, of its clips (all that says what they are and how they divide),
    and of what soft labels derive from (teachers, fit and its calibration)."""
    attrs, c = reader.attrs, reader.clips
    columns = ("length", "label", "done", "corpus", "split", "method", "group")
    table = json.dumps([[str(x) for x in c["id"]], *(np.asarray(c[k]).tolist() for k in columns)])
    fit = hashlib.sha256(_text({name: attrs.get(name) for name in ("teachers", "similarity", "fps", "sample_rate")}))
    _feed(fit, reader.fit.to_arrays() if reader.fit is not None else {})
    return {
        "path": str(reader.path),
        "attrs": hashlib.sha256(_text(attrs)).hexdigest()[:16],
        "clips": hashlib.sha256(table.encode()).hexdigest()[:16],
        "fit": fit.hexdigest()[:16],
    }


def shards_digest(reader: Reader, names: Iterable[str]) -> str:
    """A hash of the contents of frames/NAME of these names, by what the store's inventory tells of its shards; "" where it
    tells nothing: stores of before, and those that a run has open."""
    known = getattr(reader.inventory, "shards", {})
    found = {name: known[name] for name in names if name in known}
    return hashlib.sha256(_text(found)).hexdigest()[:16] if found else ""


def _text(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()


def _feed(found: Any, tree: Any) -> None:
    """Names, types, shapes and bytes of a nested dict of arrays, in the order of names."""
    for name in sorted(tree, key=str):
        value = tree[name]
        if isinstance(value, dict):
            found.update(_text([str(name), "group"]))
            _feed(found, value)
        elif isinstance(value, np.ndarray) and value.dtype.kind not in "OTU":
            found.update(_text([str(name), value.dtype.str, value.shape]))
            found.update(np.ascontiguousarray(value).tobytes())
        else:
            found.update(_text([str(name), value.tolist() if isinstance(value, np.ndarray) else value]))


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "numpy": np.__version__,
    }


def keep_lines(file: Path, step: int) -> None:
    """Drop the lines that steps after `step` wrote: they are written again. Lines that a kill or damage left unreadable go,
    too, with a warning."""
    if not file.is_file():
        return
    kept, lost = [], 0
    for line in file.read_bytes().splitlines():
        try:
            number = plain_json.parse_exact(line)["step"]
            if not isinstance(number, int):
                raise ValueError("no step")
        except (ValueError, KeyError, TypeError):
            lost += bool(line.strip())
            continue
        if number <= step:
            kept.append(line)
    if lost:
        log.warning("%d lines of %s could not be read and are left out", lost, file)
    write(file, b"".join(line + b"\n" for line in kept))


def peak_memory() -> dict[str, int]:
    """Largest resident memory so far, MiB: of this process, and of the largest worker that has ended."""
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"process": round(own / 1024), "largest_worker": round(children / 1024)}


def claim(folder: Path) -> IO[bytes]:
    """Make the output folder and lock it; the lock lasts until the file is closed or the process dies.

    Raises ConfigError where another run still has it after a moment, or where nothing can be locked there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    lock = os.fdopen(os.open(folder / LOCK_FILE, flags, 0o666), "r+b", buffering=0)
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() > deadline:
                lock.close()
                raise ConfigError(f"another run writes to {folder}; wait for it or choose another --output") from None
            time.sleep(0.5)
        except OSError as error:
            lock.close()
            raise ConfigError(
                f"{folder} cannot be locked ({error.strerror}), so two runs could mix there; some network disks know no locks: "
                "choose an --output on another disk"
            ) from error


def check_output(folder: Path, config: TrainConfig, wanted: str | None) -> None:
    """Raise ConfigError where a run may not write to `folder`: it holds a run, or anything else that could be lost.

    `wanted`: what --resume_from_checkpoint says. A run that was killed before its first checkpoint begins again with "latest".
    Names that begin with a dot do not count.
    """
    if not folder.is_dir():
        return  # made later, or no folder: making it says so
    found = checkpoints(folder)
    if found and wanted:
        return
    if found:
        raise ConfigError(
            f"{folder} holds a run up to {found[-1].name}: go on with --resume_from_checkpoint latest, or choose another "
            "--output"
        )
    there = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    if wanted == "latest":
        there = [name for name in there if name in WRITTEN or name.startswith(PREFIX)]
    if not there:
        return
    if _begun(folder, config) and all(name in WRITTEN for name in there):
        if wanted == "latest":
            return
        raise ConfigError(
            f"{folder} holds a run that was ended before its first checkpoint: begin it again with --resume_from_checkpoint "
            "latest, or choose another --output"
        )
    raise ConfigError(
        f"{folder} holds {there[0]!r} and no checkpoint to go on from, so a run would overwrite or mix with what is there: "
        "choose another --output"
    )


def _begun(folder: Path, config: TrainConfig) -> bool:
    """Whether `folder` holds the beginning of a run with these options, which has not finished."""
    try:
        asked = plain_json.parse_exact((folder / "config.json").read_bytes())
        results = folder / "results.json"
        finished = plain_json.parse_exact(results.read_bytes())["finished"] if results.is_file() else False
        return finished is False and not differences(TrainConfig.from_dict(asked["config"]), config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
