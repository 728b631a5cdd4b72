"""The detector in one file: weights with a header that says what they are, checked at writing and at loading.

The detector is `model.safetensors`: a plain state dict whose header also holds, as JSON, the model's name and sizes, threshold
and temperature, and what it was trained on; one file, so the two cannot part. A checksum covers header and weights, and both
must be finite: a damaged detector is refused, it never answers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from concord import files, plain_json
from concord.errors import ConcordError
from concord.plain_json import cleaned
from student.config import TRIMS
from student.data.picture import SIDES
from student.models import build, least_numbers

log = logging.getLogger(__name__)

MODEL_FILE = "model.safetensors"
NOT_FITTED = "nothing: no validation trials"  # in a header, for what threshold and temperature are fitted on
HEADER, DIGEST = "concord-av", "sha256"  # in the metadata of a detector
FORMAT = 2  # of detectors with a checksum; those of before say none
MOST_HEADER = 1 << 20  # bytes; ours have some ten thousand
MOST_MODEL = 1 << 29  # bytes of a detector; talknet has 63 million


class CheckpointError(ConcordError):
    """A checkpoint that is missing or cannot be read; one line that says what to do."""


class SaveError(ConcordError):
    """Weights that must not be kept, or a disk that does not take them; one line that says what to do."""

    exit_code = 1


# -- the detector -----------------------------------------------------------------------------------------------------


def save_model(folder: Path, model: nn.Module, name: str, about: dict[str, Any]) -> None:
    """Write `model.safetensors` in `folder`, whole or not at all; `about` must be JSON-able and hold threshold, temperature.

    Raises SaveError where weights, threshold or temperature are not finite, OSError where the file cannot be written.
    """
    from safetensors.torch import save

    header = {"model": name, "options": asdict(model.config), "format": FORMAT, **about}  # type: ignore[call-overload]
    state = on_cpu(model.state_dict())
    if odd := not_finite(state):
        raise SaveError(f"the weights {odd} are not finite, so no detector was written; try a lower --lr")
    for key in ("threshold", "temperature"):
        if not isinstance(about[key], int | float) or not math.isfinite(about[key]):
            raise SaveError(f"the {key} is {about[key]}, so no detector was written")
    text = json.dumps(cleaned(header))
    files.write(folder / MODEL_FILE, save(state, metadata={HEADER: text, DIGEST: _digest(text, state)}))


def load_model(path: Path, device: torch.device | str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """The detector of a run's folder (or of the file itself) in evaluation mode, and what its header says.

    Raises CheckpointError naming the file where it is missing, foreign, damaged, not finite or of another shape.
    """
    from safetensors import SafetensorError, safe_open

    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"no model at {file}; --checkpoint takes the --output folder of a training run")
    try:
        _check_size(file)
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            about = _about(metadata)
            model = _fitting(about, {key: opened.get_slice(key) for key in opened.keys()})  # noqa: SIM118 - no mapping
            model.load_state_dict({key: opened.get_tensor(key) for key in opened.keys()})  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{file} is not a detector of this project: {first(error)}") from error
    state = model.state_dict()  # what will answer is what is checked
    _check_digest(file, about, metadata, state)
    if odd := not_finite(state):
        raise CheckpointError(f"{file}: the weights {odd} are not finite; the training that wrote it failed")
    return model.to(device).eval(), about


def check_intact(file: Path) -> None:
    """Raise CheckpointError where a detector of ours does not hold what was written. A file of others says nothing to that."""
    from safetensors import SafetensorError, safe_open

    told = about(file)
    if not told:
        return
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            _check_digest(file, told, metadata, {key: opened.get_tensor(key) for key in opened.keys()})  # noqa: SIM118
    except (SafetensorError, ValueError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or no file of weights: {first(error)}") from error


def _check_digest(
    file: Path, about: Mapping[str, Any], metadata: Mapping[str, str], tensors: Mapping[str, torch.Tensor]
) -> None:
    if DIGEST in metadata or about.get("format") is not None:
        if metadata.get(DIGEST) != _digest(metadata[HEADER], tensors):
            raise CheckpointError(
                f"{file} is damaged: it does not hold what was written (its checksum is another); restore it from a copy"
            )
    else:
        log.warning("%s is of an earlier release and has no checksum: damage to it would not be noticed", file)


def blank(path: Path, name: str) -> nn.Module | None:
    """A new model `name` in the sizes that a detector of ours tells, where its tensors have them; None for any other file.

    Raises CheckpointError where header and tensors do not go together.
    """
    from safetensors import SafetensorError, safe_open

    told = about(path)
    if told.get("model") != name:
        return None
    file = path / MODEL_FILE if path.is_dir() else path
    try:
        with safe_open(file, framework="pt") as opened:
            return _fitting(told, {key: opened.get_slice(key) for key in opened.keys()})  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{file} is not a detector of this project: {first(error)}") from error


def is_fitted(about: Mapping[str, Any]) -> bool:
    """Whether threshold and temperature of a detector with that header were fitted on anything."""
    return about.get("fitted_on") != NOT_FITTED


def picture(about: Mapping[str, Any]) -> str:
    """What a detector with that header, or a run with that state, looks at (`student.data.picture`)."""
    return about["config"].get("data", {}).get("picture", "mouth")  # all did before there was a choice


def about(path: Path) -> dict[str, Any]:
    """What the header of our own detector says: model, options and more; {} for any other file."""
    from safetensors import SafetensorError, safe_open

    file = path / MODEL_FILE if path.is_dir() else path
    if file.suffix != ".safetensors" or not file.is_file():
        return {}
    try:
        _check_size(file)
        with safe_open(file, framework="pt") as opened:
            told = plain_json.parse_exact((opened.metadata() or {}).get(HEADER, "{}"), MOST_HEADER)
    except (SafetensorError, ValueError, OSError):
        return {}  # whoever reads the tensors says what is wrong with the file
    return told if isinstance(told, dict) else {}


def _check_size(file: Path) -> None:
    """ValueError for what is larger than any detector, before any of it is read."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        header = int.from_bytes(opened.read(8), "little")
    if size > MOST_MODEL or header > min(size, MOST_HEADER):
        raise ValueError(f"it has {size} bytes, and a header of {header}")


def _about(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The header, of the types that its readers take for granted; ValueError for any other."""
    if HEADER not in metadata:
        raise ValueError(f"its header says nothing of {HEADER}")
    told = plain_json.parse_exact(metadata[HEADER], MOST_HEADER)
    if not isinstance(told, dict):
        raise ValueError("its header holds no names and values")

    def check(name: str, right: bool) -> None:
        if not right:
            raise ValueError(f"its header has no {name} that can be used")

    check("model", isinstance(told.get("model"), str))
    check("options", isinstance(told.get("options"), dict))
    check("threshold", _number(told.get("threshold")))
    check("temperature", _number(told.get("temperature")) and told["temperature"] > 0)
    check("window", _whole(told.get("window")) and 1 <= told["window"] <= 100_000)
    config = told.get("config")
    check("config", isinstance(config, dict) and isinstance(config.get("data", {}), dict))
    assert isinstance(config, dict)
    check("seed", _whole(config.get("seed", 0)) and config.get("seed", 0) >= 0)
    check("trim", config.get("data", {}).get("trim", "none") in TRIMS)
    check("picture", config.get("data", {}).get("picture", "mouth") in tuple(SIDES))
    for name in ("store", "versions"):
        check(name, isinstance(told.get(name, {}), dict))
    check("fitted_on", isinstance(told.get("fitted_on", ""), str))
    return told


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _fitting(about: Mapping[str, Any], parts: Mapping[str, Any]) -> nn.Module:
    """A new model as the header says, made once it is known to be no larger than what is there. ValueError where names, types
    or shapes of tensors are not the model's."""
    options = about.get("options", {})
    found = {key: list(part.get_shape()) for key, part in parts.items()}
    if least_numbers(about["model"], **options) > sum(math.prod(shape) for shape in found.values()):
        raise ValueError("its header tells of more weights than it holds")
    model = build(about["model"], **options)
    wanted = {key: (list(x.shape), x.dtype) for key, x in model.state_dict().items()}
    for key in [*wanted, *found]:
        if key not in found:
            raise ValueError(f"it lacks {key}")
        if key not in wanted:
            raise ValueError(f"it holds {key}, which a {about['model']} has not")
        if found[key] != wanted[key][0] or parts[key].get_dtype() != _NAMES[wanted[key][1]]:
            raise ValueError(f"{key} is {parts[key].get_dtype()} {found[key]}, not as its header says")
    return model


_NAMES = {torch.float32: "F32", torch.int64: "I64"}  # what our models are made of


# -- training checkpoints ---------------------------------------------------------------------------------------------


def not_finite(tensors: Mapping[str, torch.Tensor]) -> str:
    """Name of the first tensor that holds nan or an infinity; "" where none does."""
    return next((key for key, x in tensors.items() if x.is_floating_point() and not torch.isfinite(x).all()), "")


def weights_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 that tells these weights, with their names and types, from any others."""
    return _digest("", tensors)


def _digest(header: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over the header's text and every tensor's name, type, shape and bytes, in the order of names."""
    found = hashlib.sha256(header.encode())
    for key in sorted(tensors):
        x = tensors[key].detach().cpu().contiguous()
        found.update(json.dumps([key, str(x.dtype), list(x.shape)]).encode())
        found.update(x.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def sum_of(state: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def first(error: BaseException) -> str:
    """An error's first line."""
    lines: Iterable[str] = str(error).strip().splitlines()
    return next(iter(lines), type(error).__name__)


def on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
