"""Loads weights trained elsewhere into a student: every key must match, or the file is refused by name.

A file is a state dict: torch's own (read as data only, whatever its suffix), .npz or .safetensors; keys may begin with
`module.`, which data-parallel training adds. `talknet` takes the authors' checkpoint (with or without the teachers
inside it) and TalkNet-ASD's; `lite` and `talknet` take the files of this project's training.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from store.formats import npz
from student.checkpoint import MODEL_FILE, CheckpointError, check_intact

WRAPPED = "module."
TEACHERS = ("ASRmodel.", "VSRmodel.")  # frozen, inside the authors' checkpoint
LEFT_OVER = {"talknet": ("lossA.FC.weight", "lossA.FC.bias", "lossV.FC.weight", "lossV.FC.bias")}  # TalkNet-ASD's
ABSENT = {
    "talknet": (
        # the authors' own and unused; TalkNet-ASD's checkpoint lacks them
        *(f"lossCont_Spea.projection_{side}.{leaf}" for side in "AB" for leaf in ("weight", "bias")),
        # added by this project
        "log_scale",
        "bias",
    )
}


@dataclass(frozen=True)
class Loaded:
    """Result of loading a file: its hash, the number of keys taken, the keys ignored, and the keys that kept their old
    values."""

    path: str
    sha256: str
    taken: int
    left_aside: tuple[str, ...]
    kept: tuple[str, ...]

    def __str__(self) -> str:
        rest = []
        if self.left_aside:
            rest.append(f"{len(self.left_aside)} others left aside ({', '.join(_parts(self.left_aside))})")
        if self.kept:
            rest.append(f"{len(self.kept)} not in it ({', '.join(_parts(self.kept))})")
        return f"{self.path}: {self.taken} tensors, " + "".join(f"{x}, " for x in rest) + f"sha256 {self.sha256[:16]}"


def load(model: nn.Module, name: str, path: Path | str) -> Loaded:
    """Fill the student `name` from a file.

    Raises CheckpointError, which names file and key, for a missing or unknown key, for a tensor of another shape or one
    that is not finite, and for a file that is missing, damaged or holds anything except tensors.
    """
    path = Path(path)
    file = path / MODEL_FILE if path.is_dir() else path
    state = _unwrapped(read(file), file)
    check_intact(file)
    own = model.state_dict()
    left = [key for key in state if key not in own]
    missing = [key for key in own if key not in state]
    allowed = LEFT_OVER.get(name, ())
    odd = [key for key in left if key not in allowed and not (name == "talknet" and key.startswith(TEACHERS))]
    lacking = [key for key in missing if key not in ABSENT.get(name, ())]
    if lacking:
        raise CheckpointError(f"{file} lacks {_named(lacking)} of the model {name}; give a checkpoint of this model")
    if odd:
        raise CheckpointError(
            f"{file} holds {_named(odd)}, which the model {name} does not have; give a checkpoint of this model"
        )
    for key in own.keys() & state.keys():
        expected, found = tuple(own[key].shape), tuple(state[key].shape)
        if expected != found:
            raise CheckpointError(f"{file}: {key} has the shape {list(found)}, the model {name} needs {list(expected)}")
        if not torch.isfinite(state[key]).all():
            raise CheckpointError(f"{file}: {key} holds values that are not finite; the training that wrote it failed")
    model.load_state_dict({key: state[key] for key in own if key in state}, strict=False)
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return Loaded(str(file), digest, len(own) - len(missing), tuple(left), tuple(missing))


def read(file: Path) -> dict[str, torch.Tensor]:
    """The state dict in a file, on the CPU. No code from the file is run. Raises CheckpointError, which names it."""
    if not file.is_file():
        raise CheckpointError(
            f"no weights at {file}; give a .pt, .pth, .model, .npz or .safetensors file, or a run's folder"
        )
    try:
        state: Any
        if file.suffix == ".npz":
            state = {key: torch.from_numpy(array) for key, array in npz.read(file).items()}
        elif file.suffix == ".safetensors":
            from safetensors import SafetensorError
            from safetensors.torch import load_file

            try:
                state = load_file(file)
            except SafetensorError as error:
                raise ValueError(str(error)) from error
        else:
            from teachers import TeacherError
            from teachers.files import checkpoint  # under the policy of teachers.files.unpickle

            try:
                state = checkpoint.read(file)
            except TeacherError as error:
                raise CheckpointError(
                    f"{file} is damaged or holds more than tensors, so it was not read ({error}); take it from a source "
                    "that you trust"
                ) from error
    except (*npz.ERRORS, TypeError, MemoryError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{file} is damaged or not a file of weights: {said}") from error
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{file} holds a {type(state).__name__}, not a state dict (names and tensors)")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{file}: a state dict holds names and tensors, {str(key)[:80]} is a {type(value).__name__}"
            )
    return state


def _unwrapped(state: dict[str, torch.Tensor], file: Path) -> dict[str, torch.Tensor]:
    """The state without the prefix `module.`."""
    out = {key.removeprefix(WRAPPED): value for key, value in state.items()}
    if len(out) != len(state):
        twice = next(key for key in out if key in state and WRAPPED + key in state)
        raise CheckpointError(f"{file} holds {twice} twice, with and without the prefix {WRAPPED}")
    return out


def _named(keys: list[str]) -> str:
    """The first key, and the number of others."""
    return keys[0] + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")


def _parts(keys: tuple[str, ...]) -> list[str]:
    """The parts of the names before the first dot, each once."""
    return list(dict.fromkeys(key.partition(".")[0] for key in keys))
