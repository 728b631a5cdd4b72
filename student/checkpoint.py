"""The detector in one file: weights with a header that describes them, checked when written and when loaded.

The detector is `model.safetensors`: a plain state dict whose header also holds, as JSON, the model's name and sizes,
threshold and temperature, and what it was trained on. It is one file, so weights and header cannot be separated. A
checksum covers header and weights, and both must be finite: a damaged detector is refused and never gives an answer.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from concord import files, plain_json
from concord.errors import ConcordError
from student.header import Header
from student.models import build, least_numbers

log = logging.getLogger(__name__)

MODEL_FILE = "model.safetensors"
HEADER, DIGEST = "concord-av", "sha256"  # in the metadata of a detector
FORMAT = 2  # of detectors with a checksum; older ones have no format
MOST_HEADER = 1 << 20  # bytes; the project's own have about ten thousand
MOST_MODEL = 1 << 29  # bytes of a detector; talknet has 63 million


class CheckpointError(ConcordError):
    """A checkpoint is missing or cannot be read; one line that says what to do."""


class SaveError(ConcordError):
    """Weights that must not be saved, or that cannot be written to the disk; one line that says what to do."""

    exit_code = 1


# -- the detector -----------------------------------------------------------------------------------------------------


def options_of(model: nn.Module) -> dict[str, Any]:
    """The sizes of a student, as arguments of `student.models.build`."""
    return asdict(cast(Any, model).config)


def save_model(folder: Path, model: nn.Module, name: str, about: Mapping[str, Any]) -> None:
    """Write `model.safetensors` in `folder`, completely or not at all; `about`, plain values for JSON, is what
    `Header.parse` reads.

    Raises SaveError if weights, threshold or temperature are not finite, OSError if the file cannot be written.
    """
    from safetensors.torch import save

    header = {"model": name, "options": options_of(model), "format": FORMAT, **about}
    state = on_cpu(model.state_dict())
    if odd := not_finite(state):
        raise SaveError(f"the weights {odd} are not finite, so no detector was written; try a lower --lr")
    for key in ("threshold", "temperature"):
        if not isinstance(about[key], int | float) or not math.isfinite(about[key]):
            raise SaveError(f"the {key} is {about[key]}, so no detector was written")
    text = json.dumps(plain_json.cleaned(header))
    files.write(folder / MODEL_FILE, save(state, metadata={HEADER: text, DIGEST: _digest(text, state)}))


def load_model(path: Path, device: torch.device | str = "cpu") -> tuple[nn.Module, Header]:
    """The detector in a run's folder (or in the file itself) in evaluation mode, and its header.

    Raises CheckpointError, which names the file, if it is missing, not a detector, damaged, not finite or of another
    shape.
    """
    from safetensors import SafetensorError, safe_open

    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(f"no model at {file}; --checkpoint takes the --output folder of a training run")
    try:
        _check_size(file)
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            header = _header(file, metadata)
            parts = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 - not a mapping
            model = _fitting(header.model, header.options, parts)
            model.load_state_dict({key: opened.get_tensor(key) for key in opened.keys()})  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{file} is not a detector of this project: {first(error)}") from error
    state = model.state_dict()  # check the weights that will be used
    _check_digest(file, header.told, metadata, state)
    if odd := not_finite(state):
        raise CheckpointError(f"{file}: the weights {odd} are not finite; the training that wrote it failed")
    return model.to(device).eval(), header


def check_intact(file: Path) -> None:
    """Raise CheckpointError if a detector of this project changed since it was written. Other files have no
    checksum."""
    from safetensors import SafetensorError, safe_open

    told = about(file)
    if not told:
        return
    _check_format(file, told)
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            _check_digest(file, told, metadata, {key: opened.get_tensor(key) for key in opened.keys()})  # noqa: SIM118
    except (SafetensorError, ValueError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or not a file of weights: {first(error)}") from error


def _check_format(file: Path, about: Mapping[str, Any]) -> None:
    """Earlier releases wrote none. A newer one may mean something else by the same names. Raises CheckpointError."""
    number = about.get("format", 0)
    if not plain_json.is_count(number):
        raise CheckpointError(f"{file} is damaged: its format is {str(number)[:40]}")
    if number > FORMAT:
        raise CheckpointError(f"{file} has format {number}; this release reads up to {FORMAT}: update it")


def _check_digest(
    file: Path, about: Mapping[str, Any], metadata: Mapping[str, str], tensors: Mapping[str, torch.Tensor]
) -> None:
    if DIGEST in metadata or about.get("format") is not None:
        if metadata.get(DIGEST) != _digest(metadata[HEADER], tensors):
            raise CheckpointError(
                f"{file} is damaged: it changed since it was written (its checksum differs); restore it from a copy"
            )
    else:
        log.warning("%s is from an earlier release and has no checksum: damage to it would not be noticed", file)


def blank(path: Path, name: str) -> nn.Module | None:
    """A new model `name` with the sizes in the header of one of this project's detectors; None for any other file.

    Raises CheckpointError if header and tensors do not match.
    """
    from safetensors import SafetensorError, safe_open

    told = about(path)
    if told.get("model") != name:
        return None
    file = path / MODEL_FILE if path.is_dir() else path
    try:
        with safe_open(file, framework="pt") as opened:
            parts = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118
            return _fitting(name, told.get("options", {}), parts)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, OSError) as error:
        raise CheckpointError(f"{file} is not a detector of this project: {first(error)}") from error


def about(path: Path) -> dict[str, Any]:
    """The header of one of this project's detectors: model, options and more; {} for any other file."""
    from safetensors import SafetensorError, safe_open

    file = path / MODEL_FILE if path.is_dir() else path
    if file.suffix != ".safetensors" or not file.is_file():
        return {}
    try:
        _check_size(file)
        with safe_open(file, framework="pt") as opened:
            told = plain_json.parse_exact((opened.metadata() or {}).get(HEADER, "{}"), MOST_HEADER)
    except (SafetensorError, ValueError, OSError):
        return {}  # the code that reads the tensors reports what is wrong with the file
    return told if isinstance(told, dict) else {}


def _check_size(file: Path) -> None:
    """ValueError for a file larger than any detector, before it is read."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        header = int.from_bytes(opened.read(8), "little")
    if size > MOST_MODEL or header > min(size, MOST_HEADER):
        raise ValueError(f"it has {size} bytes, and a header of {header}")


def _header(file: Path, metadata: Mapping[str, str]) -> Header:
    """The header of a detector; ValueError for one that cannot be used, CheckpointError for one of a newer release."""
    if HEADER not in metadata:
        raise ValueError(f"its header has no entry {HEADER}")
    told = plain_json.parse_exact(metadata[HEADER])
    if isinstance(told, dict):
        _check_format(file, told)
    return Header.read(metadata[HEADER])


def _fitting(name: str, options: Mapping[str, Any], parts: Mapping[str, Any]) -> nn.Module:
    """A new model with the header's sizes, built only after these are known not to exceed the file's tensors.
    ValueError if names, types or shapes of tensors are not the model's."""
    found = {key: list(part.get_shape()) for key, part in parts.items()}
    if least_numbers(name, **options) > sum(math.prod(shape) for shape in found.values()):
        raise ValueError("its header describes more weights than it holds")
    model = build(name, **options)
    wanted = {key: (list(x.shape), x.dtype) for key, x in model.state_dict().items()}
    for key in [*wanted, *found]:
        if key not in found:
            raise ValueError(f"it lacks {key}")
        if key not in wanted:
            raise ValueError(f"it holds {key}, which a {name} does not have")
        if found[key] != wanted[key][0] or parts[key].get_dtype() != _NAMES[wanted[key][1]]:
            raise ValueError(f"{key} is {parts[key].get_dtype()} {found[key]}, unlike its header")
    return model


_NAMES = {torch.float32: "F32", torch.int64: "I64"}  # the types in this project's models


# -- training checkpoints ---------------------------------------------------------------------------------------------


def not_finite(tensors: Mapping[str, torch.Tensor]) -> str:
    """Name of the first tensor that holds NaN or an infinity; "" if there is none."""
    return next((key for key, x in tensors.items() if x.is_floating_point() and not torch.isfinite(x).all()), "")


def weights_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 that identifies these weights, with their names and types."""
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
