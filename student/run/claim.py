"""Claims a run's folder: one run at a time, and none that would mix its files with others."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import IO

from concord import files, plain_json
from student.checkpoint import MODEL_FILE
from student.config import ConfigError, TrainConfig, differences
from student.run_state import PREFIX, checkpoints

LOCK_FILE = ".concord-run.lock"
WRITTEN = (
    "config.json",
    "metrics.jsonl",
    "results.json",
    MODEL_FILE,
    "MODEL_CARD.md",
    "tracking",
    "wandb",
)  # beside checkpoints
LOCK_WAIT_S = 20.0  # a run whose launcher was killed needs a moment to save and exit


def claim(folder: Path, config: TrainConfig, wanted: str | None) -> IO[bytes]:
    """Claim the output folder for a run: check it, make it, lock it, and remove unfinished files of earlier runs.

    The lock lasts until the file is closed or the process dies. `wanted`: the value of --resume_from_checkpoint. Raises
    ConfigError if the folder is in use, cannot be made, or holds anything that a run could damage.
    """
    try:
        check_output(folder, config, wanted)  # before anything is created there
        lock = lock_folder(folder)
        try:
            check_output(folder, config, wanted)  # another run may have ended during the wait
            files.sweep(folder)
        except BaseException:
            lock.close()
            raise
        return lock
    except OSError as error:
        raise ConfigError(str(error)) from error


def lock_folder(folder: Path) -> IO[bytes]:
    """Make the output folder and lock it.

    Raises ConfigError if another run still holds the lock after LOCK_WAIT_S, or if files cannot be locked there.
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
                f"{folder} cannot be locked ({error.strerror}), so two runs could mix there; some network disks do not support "
                "locks: choose an --output on another disk"
            ) from error


def check_output(folder: Path, config: TrainConfig, wanted: str | None) -> None:
    """Raise ConfigError if a run may not write to `folder`: it holds a run, or other files that could be lost.

    A run that was killed before its first checkpoint is started again with "latest". Names that begin with a dot are
    ignored.
    """
    if not folder.is_dir():
        return  # it is made later; if it is not a folder, that fails
    found = checkpoints(folder)
    if found and wanted:
        return
    if found:
        raise ConfigError(
            f"{folder} holds a run up to {found[-1].name}: continue with --resume_from_checkpoint latest, or choose another "
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
            f"{folder} holds a run that ended before its first checkpoint: start it again with --resume_from_checkpoint "
            "latest, or choose another --output"
        )
    raise ConfigError(
        f"{folder} holds {there[0]!r} and no checkpoint to continue from, so a run would overwrite or mix with what is there: "
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
