"""What a run leaves behind: the detector in one file, and folders from which training goes on exactly.

The detector is `model.safetensors`: a plain state dict whose header also holds, as JSON, the model's name and sizes, threshold
and temperature, and what it was trained on; one file, so the two cannot part. A training checkpoint is a folder
`checkpoint-STEP`: written under another name by all processes, then renamed, so its name means that it is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .config import write_json
from .models import build

MODEL_FILE = "model.safetensors"
STATE_FILE = "trainer.json"
NOT_FITTED = "nothing: no validation trials"  # in a header, for what threshold and temperature are fitted on
PREFIX = "checkpoint-"
PARTIAL = "partial-"


class CheckpointError(Exception):
    """A checkpoint that is missing or cannot be read; one line that says what to do."""


def save_model(folder: Path, model: nn.Module, name: str, about: dict[str, Any]) -> None:
    """Write `model.safetensors` in `folder`, whole or not at all; `about` must be JSON-able and hold threshold, temperature."""
    from safetensors.torch import save_file

    header = {"model": name, "options": asdict(model.config), **about}  # type: ignore[call-overload]
    state = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    partial = folder / f"{MODEL_FILE}.partial"
    partial.touch()  # for the mode of a new file; safetensors' own can be read by nobody else
    mode = partial.stat().st_mode
    save_file(state, partial, metadata={"concord-av": json.dumps(header)})
    partial.chmod(mode)
    partial.replace(folder / MODEL_FILE)


def load_model(path: Path, device: torch.device | str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """The detector of a run's folder (or of the file itself) in evaluation mode, and what its header says.

    Raises CheckpointError naming the file where it is missing, foreign or of another shape.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"no model at {file}; --checkpoint takes the --output folder of a training run")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
        about = json.loads(metadata["concord-av"])
        model = build(about["model"], **about["options"])
        model.load_state_dict(load_file(file))
    except (SafetensorError, KeyError, ValueError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{file} is not a detector of this project: {str(error).splitlines()[0]}") from error
    return model.to(device).eval(), about


def is_fitted(about: Mapping[str, Any]) -> bool:
    """Whether threshold and temperature of a detector with that header were fitted on anything."""
    return about.get("fitted_on") != NOT_FITTED


def picture(about: Mapping[str, Any]) -> str:
    """What a detector with that header, or a run with that state, looks at (`student.picture`)."""
    return about["config"].get("data", {}).get("picture", "mouth")  # all did before there was a choice


def about(path: Path) -> dict[str, Any]:
    """What the header of our own detector says: model, options and more; {} for any other file."""
    from safetensors import SafetensorError, safe_open

    file = path / MODEL_FILE if path.is_dir() else path
    if file.suffix != ".safetensors" or not file.is_file():
        return {}
    try:
        with safe_open(file, framework="pt") as opened:
            return json.loads((opened.metadata() or {}).get("concord-av", "{}"))
    except (SafetensorError, ValueError, OSError):
        return {}  # whoever reads the tensors says what is wrong with the file


def checkpoints(folder: Path) -> list[Path]:
    """Whole training checkpoints of a run, oldest first."""
    found = [p for p in folder.glob(f"{PREFIX}*") if p.name[len(PREFIX) :].isdigit() and (p / STATE_FILE).is_file()]
    return sorted(found, key=lambda p: int(p.name[len(PREFIX) :]))


def find(folder: Path, wanted: str) -> Path | None:
    """The checkpoint that `--resume_from_checkpoint` names: `latest` of the run (None where there is none yet) or a folder."""
    if wanted == "latest":
        found = checkpoints(folder)
        return found[-1] if found else None
    path = Path(wanted)
    if not (path / STATE_FILE).is_file():
        raise CheckpointError(f'no checkpoint at {path}; give a folder {PREFIX}STEP of a run, or "latest"')
    return path


def save_state(accelerator: Any, folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write `checkpoint-STEP` of model, optimizer and `state` (JSON-able), keep the newest `keep`. Every process calls it."""
    target, partial = folder / f"{PREFIX}{step}", folder / f"{PARTIAL}{step}"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_json(partial / STATE_FILE, state)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        for old in checkpoints(folder)[:-keep]:
            shutil.rmtree(old)
        for left in folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(left)
    accelerator.wait_for_everyone()
    return target


def read_state(path: Path) -> dict[str, Any]:
    """What `save_state` was given as `state`. Raises CheckpointError for a damaged file."""
    try:
        state = json.loads((path / STATE_FILE).read_text())
        missing = {"config", "store", "step", "epoch", "position"} - state.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path / STATE_FILE} cannot be read ({str(error).splitlines()[0]}); name an earlier checkpoint of the run"
        ) from error
    if missing:
        raise CheckpointError(f"{path / STATE_FILE} has no {min(missing)}; name an earlier checkpoint of the run")
    return state


def load_state(accelerator: Any, path: Path) -> dict[str, Any]:
    """Load model and optimizer into what `accelerator` prepared; returns the saved `state`."""
    state = read_state(path)
    try:
        accelerator.load_state(str(path))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be loaded: {str(error).splitlines()[0]}") from error
    return state
