"""A training run's checkpoints: folders with weights, optimizer and trainer.json, from which it continues with the same
bits.

A training checkpoint is a folder `checkpoint-STEP`: it is written under another name, synced, then renamed, so its name
means that it is complete. It holds tensors (safetensors) and `trainer.json` with the checksum of each file, and no
executable data. It needs no state of a random generator: each step seeds its own (`student.training.trainer`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from concord import files, plain_json
from concord.plain_json import cleaned
from student.checkpoint import MODEL_FILE, MOST_HEADER, CheckpointError, SaveError, first, not_finite, on_cpu, sum_of

STATE_FILE, OPTIMIZER_FILE, AVERAGE_FILE = "trainer.json", "optimizer.safetensors", "average.safetensors"
PREFIX = "checkpoint-"
MOST_STATE = 1 << 26  # bytes of trainer.json
STATE = {"config": dict, "store": dict, "step": int, "epoch": int, "position": int, "history": list, "best": dict,
         "seconds": dict, "threads": int, "processes": int}  # fmt: skip
OPTIONAL = {"history", "best", "seconds", "threads", "processes"}  # may be missing when a state is only inspected


def checkpoints(folder: Path) -> list[Path]:
    """Complete training checkpoints of a run, oldest first."""
    found = [p for p in folder.glob(f"{PREFIX}*") if _step(p) is not None and files.is_plain(p / STATE_FILE)]
    return sorted((p for p in found if not p.is_symlink()), key=lambda p: _step(p) or 0)


def _step(path: Path) -> int | None:
    digits = path.name[len(PREFIX) :]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None


def find(folder: Path, wanted: str) -> Path | None:
    """The checkpoint that `--resume_from_checkpoint` names: the run's `latest` (None if there is none yet) or a folder.

    Raises CheckpointError if it does not exist or belongs to another run: a run continues only in its own folder.
    """
    if wanted == "latest":
        found = checkpoints(folder)
        return found[-1] if found else None
    path = Path(wanted)
    if not (path / STATE_FILE).is_file():
        raise CheckpointError(f'no checkpoint at {path}; give a folder {PREFIX}STEP of --output, or "latest"')
    real = path.resolve()
    if real.parent != folder.resolve():
        raise CheckpointError(
            f"{path} is a checkpoint of the run in {real.parent}, and a run continues only in its own folder: give --output "
            f"{real.parent}, or copy that folder first, or start a new run from the weights alone with --init-from "
            f"{path / MODEL_FILE}"
        )
    return folder / real.name


class Tensors(NamedTuple):
    """The parts that a checkpoint saves and restores: the student, its optimizer, and the running average of its
    weights, if any."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module | None


def save_state(folder: Path, step: int, state: Mapping[str, Any], keep: int, tensors: Tensors) -> Path:
    """Write `checkpoint-STEP` with the tensors and `state` (plain values for JSON), then keep the newest `keep`.

    One process calls it. Raises SaveError if a value is not finite or the disk fails; earlier checkpoints are then
    unchanged.
    """
    target = folder / f"{PREFIX}{step}"
    parts = {MODEL_FILE: tensors.model.state_dict(), OPTIMIZER_FILE: _flat(tensors.optimizer.state_dict())}
    if tensors.average is not None:
        parts[AVERAGE_FILE] = tensors.average.state_dict()
    parts = {name: on_cpu(part) for name, part in parts.items()}
    for name, part in parts.items():
        if odd := not_finite(part):
            raise SaveError(
                f"step {step}: {name.partition('.')[0]} {odd} is not finite, so nothing was saved; continue from an earlier "
                "checkpoint with a lower --lr"
            )
    try:
        _write_folder(target, parts, state)
    except OSError as error:
        raise SaveError(
            f"{target} could not be written: {error.strerror or error}; earlier checkpoints are intact: free space or fix the "
            "disk and continue with --resume_from_checkpoint latest"
        ) from error
    older = [path for path in checkpoints(folder) if (_step(path) or 0) < step]
    for path in older[: max(0, len(older) + 1 - keep)]:
        files.remove(path)
    return target


def _write_folder(target: Path, parts: Mapping[str, dict[str, torch.Tensor]], state: Mapping[str, Any]) -> None:
    """Write a checkpoint under another name, sync it, then rename it; a failure leaves nothing behind."""
    from safetensors.torch import save

    folder = target.parent
    partial = files.unfinished(folder, target.name.removeprefix(PREFIX))
    try:
        partial.mkdir()
        sums: dict[str, Any] = {}
        for name, tensors in parts.items():
            data = save(tensors)
            files.put(partial / name, data)
            sums[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        whole = cleaned({**state, "files": sums})
        files.put(partial / STATE_FILE, json.dumps({**whole, "sha256": sum_of(whole)}, indent=2).encode())
        files.sync(partial)
        if target in checkpoints(folder):  # left by a run that now resumes from an earlier checkpoint
            files.remove(target)
        partial.rename(target)
        files.sync(folder)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def read_state(path: Path) -> dict[str, Any]:
    """The `state` that was given to `save_state`. Raises CheckpointError for a damaged file."""
    file = path / STATE_FILE
    try:
        if not files.is_plain(file):
            raise ValueError("it is missing, or a link instead of a file")
        if file.stat().st_size > MOST_STATE:
            raise ValueError("it is larger than any that this project writes")
        state: dict[str, Any] = plain_json.parse_exact(file.read_bytes(), MOST_STATE)
        missing = STATE.keys() - OPTIONAL - state.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{file} cannot be read ({first(error)}); name an earlier checkpoint of the run"
        ) from error
    if missing:
        raise CheckpointError(f"{file} has no {min(missing)}; name an earlier checkpoint of the run")
    if "sha256" not in state and "files" not in state:
        raise CheckpointError(
            f"{path} is of an earlier release, whose checkpoints hold pickles and no checksums and are no longer read: start a "
            f"new run from its weights with --init-from {path / MODEL_FILE}"
        )
    told = state.pop("sha256", None)
    if told != sum_of(state) or not isinstance(state["files"], dict):
        raise CheckpointError(f"{file} is damaged (its checksum differs); name an earlier checkpoint of the run")
    for name, kind in STATE.items():
        if name in state and not (isinstance(state[name], kind) and (kind is not int or state[name] >= 0)):
            raise CheckpointError(f"{file} has no {name} that can be used; name an earlier checkpoint of the run")
    right = f"{PREFIX}{state['step']}"
    if path.resolve().name != right:
        raise CheckpointError(f"{path} holds step {state['step']}: rename the folder to {right}")
    return state


def load_state(path: Path, tensors: Tensors) -> dict[str, Any]:
    """Load a checkpoint into the tensors; returns the saved `state`.

    Every file is read once and checked before anything is loaded, and no code in it is run. Raises CheckpointError,
    which names a file that is missing, damaged, a link, or does not belong to a checkpoint.
    """
    state = read_state(path)
    saved = dict(state["files"])
    wanted = [MODEL_FILE, OPTIMIZER_FILE, *([] if tensors.average is None else [AVERAGE_FILE])]
    if sorted(saved) != sorted(wanted):
        raise CheckpointError(
            f"{path} holds {', '.join(saved)}, this run needs {', '.join(wanted)}; name another checkpoint"
        )
    for name in sorted(entry.name for entry in path.iterdir()):
        if name not in saved and name != STATE_FILE and not name.startswith("."):
            raise CheckpointError(
                f"{path} holds {name!a}, which does not belong to a checkpoint; nothing was read, move it away"
            )
    model = tensors.model
    most = MOST_HEADER + 4 * sum(x.numel() * x.element_size() for x in model.state_dict().values())
    parts = {name: _read_part(path / name, sums, most) for name, sums in saved.items()}
    try:
        model.load_state_dict(parts[MODEL_FILE])
        if tensors.average is not None:
            tensors.average.load_state_dict(parts[AVERAGE_FILE])
        moments, groups = _nested(parts[OPTIMIZER_FILE]), tensors.optimizer.state_dict()["param_groups"]
        tensors.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} does not fit this run's model: {first(error)}") from error
    return state


def _read_part(file: Path, sums: Mapping[str, Any], most: int) -> dict[str, torch.Tensor]:
    """Tensors of a file, checked: at most `most` bytes, unchanged since it was written, finite. Raises CheckpointError."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        if not files.is_plain(file):
            raise ValueError("it is missing, or a link instead of a file")
        size = file.stat().st_size
        if size > most:
            raise ValueError(f"it has {size} bytes, this model needs {most} at most")
        if size != sums["bytes"]:
            raise ValueError(f"it has {size} bytes, {sums['bytes']} were written")
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() != sums["sha256"]:
            raise ValueError("it changed since it was written (its checksum differs)")
        # copies: an optimizer keeps its tensors and would otherwise work in the file's buffer, with arbitrary alignment
        tensors = {key: value.clone() for key, value in load(data).items()}
        if odd := not_finite(tensors):
            raise ValueError(f"{odd} is not finite")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{file} cannot be used: {first(error)}; name an earlier checkpoint of the run"
        ) from error
    return tensors


def _flat(optimizer: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Moments by "NUMBER OF THE PARAMETER.NAME": the content of an optimizer's state dict without its settings, which
    come from the run's options."""
    return {f"{i}.{name}": value for i, of in optimizer["state"].items() for name, value in of.items()}


def _nested(moments: Mapping[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]]:
    """Inverse of `_flat`."""
    out: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in moments.items():
        number, _, name = key.partition(".")
        out.setdefault(int(number), {})[name] = value
    return out
