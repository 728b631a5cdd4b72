"""A training run's checkpoints: folders with weights, optimizer and trainer.json, from which it goes on to the same bits.

A training checkpoint is a folder `checkpoint-STEP`: written under another name, synced, then renamed, so its name means that it
is whole. It holds tensors (safetensors) and `trainer.json` with the checksum of each file, and nothing that reading could run.
No state of a random generator is in it: each step seeds its own (`student.training.trainer`).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from concord import files, plain_json
from concord.plain_json import cleaned
from student.checkpoint import MODEL_FILE, MOST_HEADER, CheckpointError, SaveError, first, not_finite, on_cpu, sum_of

STATE_FILE = "trainer.json"
PREFIX = "checkpoint-"
MOST_STATE = 1 << 26  # bytes of trainer.json
STATE = {"config": dict, "store": dict, "step": int, "epoch": int, "position": int, "history": list, "best": dict,
         "seconds": dict, "threads": int, "processes": int}  # fmt: skip
OPTIONAL = {"history", "best", "seconds", "threads", "processes"}  # whoever reads a state alone needs none of these


def checkpoints(folder: Path) -> list[Path]:
    """Whole training checkpoints of a run, oldest first."""
    found = [p for p in folder.glob(f"{PREFIX}*") if _step(p) is not None and files.is_plain(p / STATE_FILE)]
    return sorted((p for p in found if not p.is_symlink()), key=lambda p: _step(p) or 0)


def _step(path: Path) -> int | None:
    digits = path.name[len(PREFIX) :]
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None


def find(folder: Path, wanted: str) -> Path | None:
    """The checkpoint that `--resume_from_checkpoint` names: `latest` of the run (None where there is none yet) or a folder.

    Raises CheckpointError where there is none, or one of another run: a run goes on in its own folder alone.
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
            f"{path} is a checkpoint of the run in {real.parent}, and a run goes on in its own folder: give --output "
            f"{real.parent}, or copy that folder first, or begin a new run from the weights alone with --init-from "
            f"{path / MODEL_FILE}"
        )
    return folder / real.name


def save_state(
    folder: Path, step: int, state: dict[str, Any], keep: int, model: nn.Module, optimizer: Any, average: nn.Module | None
) -> Path:  # fmt: skip
    """Write `checkpoint-STEP` of model, optimizer, running average and `state` (JSON-able), then keep the newest `keep`.

    One process calls it. Raises SaveError where something is not finite or the disk does not take it; earlier checkpoints are
    then as they were.
    """
    from safetensors.torch import save

    target = folder / f"{PREFIX}{step}"
    parts = {MODEL_FILE: model.state_dict(), "optimizer.safetensors": _flat(optimizer.state_dict())}
    if average is not None:
        parts["average.safetensors"] = average.state_dict()
    parts = {name: on_cpu(tensors) for name, tensors in parts.items()}
    for name, tensors in parts.items():
        if odd := not_finite(tensors):
            raise SaveError(
                f"step {step}: {name.partition('.')[0]} {odd} is not finite, so nothing was saved; go on from an earlier "
                "checkpoint with a lower --lr"
            )
    partial = files.unfinished(folder, str(step))
    try:
        partial.mkdir()
        sums: dict[str, Any] = {}
        for name, tensors in parts.items():
            data = save(tensors)
            files.put(partial / name, data)
            sums[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        whole = cleaned({**state, "files": sums})
        text = json.dumps({**whole, "sha256": sum_of(whole)}, indent=2)
        files.put(partial / STATE_FILE, text.encode())
        files.sync(partial)
        if target in checkpoints(folder):  # of a run that goes on from an earlier one
            files.remove(target)
        partial.rename(target)
        files.sync(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise SaveError(
            f"{target} could not be written: {error.strerror or error}; earlier checkpoints are whole: mend that and go on "
            "with --resume_from_checkpoint latest"
        ) from error
    older = [path for path in checkpoints(folder) if (_step(path) or 0) < step]
    for path in older[: max(0, len(older) + 1 - keep)]:
        files.remove(path)
    return target


def read_state(path: Path) -> dict[str, Any]:
    """What `save_state` was given as `state`. Raises CheckpointError for a damaged file."""
    file = path / STATE_FILE
    try:
        if not files.is_plain(file):
            raise ValueError("it is missing, or no file but a link")
        if file.stat().st_size > MOST_STATE:
            raise ValueError("it is larger than any of ours")
        state = plain_json.parse_exact(file.read_bytes(), MOST_STATE)
        missing = STATE.keys() - OPTIONAL - state.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{file} cannot be read ({first(error)}); name an earlier checkpoint of the run"
        ) from error
    if missing:
        raise CheckpointError(f"{file} has no {min(missing)}; name an earlier checkpoint of the run")
    if "sha256" not in state and "files" not in state:
        raise CheckpointError(
            f"{path} is of an earlier release, whose checkpoints hold pickles and no checksums and are no longer read: begin a "
            f"new run from its weights with --init-from {path / MODEL_FILE}"
        )
    told = state.pop("sha256", None)
    if told != sum_of(state) or not isinstance(state["files"], dict):
        raise CheckpointError(f"{file} is damaged (its checksum is another); name an earlier checkpoint of the run")
    for name, kind in STATE.items():
        if name in state and not (isinstance(state[name], kind) and (kind is not int or state[name] >= 0)):
            raise CheckpointError(f"{file} has no {name} that can be used; name an earlier checkpoint of the run")
    right = f"{PREFIX}{state['step']}"
    if path.resolve().name != right:
        raise CheckpointError(f"{path} holds step {state['step']}: give the folder its own name again, {right}")
    return state


def load_state(path: Path, model: nn.Module, optimizer: Any, average: nn.Module | None) -> dict[str, Any]:
    """Load a checkpoint into model, optimizer and running average; returns the saved `state`.

    Every file is read once and checked before anything is loaded, and nothing in it is run. Raises CheckpointError naming the
    file that is missing, damaged, a link, or none of the checkpoint's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    state = read_state(path)
    saved = dict(state["files"])
    wanted = {MODEL_FILE: model.state_dict(), "optimizer.safetensors": None}
    if average is not None:
        wanted["average.safetensors"] = average.state_dict()
    if saved.keys() != wanted.keys():
        raise CheckpointError(
            f"{path} holds {', '.join(saved)}, this run needs {', '.join(wanted)}; name another checkpoint"
        )
    for name in sorted(entry.name for entry in path.iterdir()):
        if name not in saved and name != STATE_FILE and not name.startswith("."):
            raise CheckpointError(
                f"{path} holds {name!a}, which is no file of a checkpoint; nothing was read, move it away"
            )
    most = MOST_HEADER + 4 * sum(x.numel() * x.element_size() for x in model.state_dict().values())
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, sums in saved.items():
        try:
            if not files.is_plain(path / name):
                raise ValueError("it is missing, or no file but a link")
            size = (path / name).stat().st_size
            if size > most:
                raise ValueError(f"it has {size} bytes, this model needs {most} at most")
            if size != sums["bytes"]:
                raise ValueError(f"it has {size} bytes, {sums['bytes']} were written")
            data = (path / name).read_bytes()
            if hashlib.sha256(data).hexdigest() != sums["sha256"]:
                raise ValueError("it does not hold what was written (its checksum is another)")
            # copies: an optimizer keeps what it is given, and would work on in the buffer that was read, aligned as it happens
            parts[name] = {key: value.clone() for key, value in load(data).items()}
            if odd := not_finite(parts[name]):
                raise ValueError(f"{odd} is not finite")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise CheckpointError(
                f"{path / name} cannot be used: {first(error)}; name an earlier checkpoint of the run"
            ) from error
    try:
        model.load_state_dict(parts[MODEL_FILE])
        if average is not None:
            average.load_state_dict(parts["average.safetensors"])
        moments = _nested(parts["optimizer.safetensors"])
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} does not fit this run's model: {first(error)}") from error
    return state


def _flat(optimizer: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Moments by "number of the parameter.name": what an optimizer's state dict holds beside its settings, which the run's
    options give."""
    return {f"{i}.{name}": value for i, of in optimizer["state"].items() for name, value in of.items()}


def _nested(moments: Mapping[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]]:
    """Inverse of `_flat`."""
    out: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in moments.items():
        number, _, name = key.partition(".")
        out.setdefault(int(number), {})[name] = value
    return out
