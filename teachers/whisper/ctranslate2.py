"""Reads Whisper weights in CTranslate2's file format and writes them as openai-whisper's checkpoint.

The file (version 6, little-endian): u32 version; string specification; u32 revision; u32 count; then for each variable
a string name, u8 rank, rank x u32 shape, u8 type, u32 bytes, data; last u32 count of aliases and their pairs of
strings. A string is a u16 length, which includes the closing NUL, and its bytes. Only float weights are read: quantised
files are refused, because they would be a different teacher.
"""

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from teachers.base import TeacherError

VERSION = 6
TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
FLOATS = ("<f4", "<f2")


@dataclass(frozen=True)
class Checkpoint:
    """The content of openai-whisper's checkpoint: its `dims`, and `state`, its "model_state_dict"."""

    dims: dict[str, int]
    state: dict[str, np.ndarray]


def read(path: Path) -> dict[str, np.ndarray]:
    """All variables by name, aliases included; TeacherError if the file is truncated or has another format."""
    try:
        with path.open("rb") as file:
            return _read(file, path.stat().st_size)
    except (OSError, struct.error, KeyError, ValueError) as error:
        raise TeacherError(f"{path} is not a whole CTranslate2 file of version {VERSION}: {error}") from error


def _read(file: BinaryIO, size: int) -> dict[str, np.ndarray]:
    version, specification, _ = _number(file, "I"), _string(file), _number(file, "I")
    if version != VERSION or specification != "WhisperSpec":
        raise ValueError(f"found version {version}, specification '{specification}'")
    variables = {}
    for _ in range(_number(file, "I")):
        name = _string(file)
        shape = [_number(file, "I") for _ in range(_number(file, "B"))]
        kind = TYPES[_number(file, "B")]
        length = _number(file, "I")
        if length > size:
            raise ValueError(f"{name} has {length} bytes, the file {size}")
        data = file.read(length)
        variables[name] = np.frombuffer(data, kind).reshape(shape)
    for _ in range(_number(file, "I")):
        alias, name = _string(file), _string(file)
        variables[alias] = variables[name]
    return variables


def _number(file: BinaryIO, kind: str) -> int:
    return struct.unpack("<" + kind, file.read(struct.calcsize(kind)))[0]


def _string(file: BinaryIO) -> str:
    return file.read(_number(file, "H")).rstrip(b"\0").decode()


def checkpoint(variables: dict[str, np.ndarray]) -> Checkpoint:
    """openai-whisper's checkpoint of these variables; every weight is used exactly once."""
    moved = _Moved(dict(variables), {})
    layers = {side: _move_layers(moved, side) for side in ("encoder", "decoder")}
    moved.layer("encoder/conv1", "encoder.conv1")
    moved.layer("encoder/conv2", "encoder.conv2")
    moved.layer("encoder/layer_norm", "encoder.ln_post")
    moved.layer("decoder/layer_norm", "decoder.ln")
    moved.state["decoder.token_embedding.weight"] = moved.take("decoder/embeddings/weight")
    moved.left.pop("decoder/projection/weight", None)  # the same as the embedding
    heads = {side: int(moved.left.pop(f"{side}/num_heads")) for side in layers}
    unknown = [name for name, value in moved.left.items() if value.ndim > 0]
    if unknown:
        raise TeacherError(f"CTranslate2 file has weights that Whisper does not have: {', '.join(sorted(unknown)[:5])}")
    return Checkpoint(_dims(moved.state, layers, heads), moved.state)


@dataclass
class _Moved:
    """Weights while they move from CTranslate2's names (`left`) to openai-whisper's (`state`)."""

    left: dict[str, np.ndarray]
    state: dict[str, np.ndarray]

    def take(self, name: str) -> np.ndarray:
        value = self.left.pop(name)
        if value.dtype.str not in FLOATS:
            raise TeacherError(
                f"CTranslate2 weights of type {value.dtype} are quantised; use a float16 or float32 file"
            )
        return value

    def layer(self, source: str, target: str) -> None:
        """A norm, a convolution or a linear map: weight and bias."""
        old = ("gamma", "beta") if f"{source}/gamma" in self.left else ("weight", "bias")
        for theirs, ours in zip(old, ("weight", "bias"), strict=True):
            self.state[f"{target}.{ours}"] = self.take(f"{source}/{theirs}")

    def split(self, source: str, target: str, parts: tuple[str, ...]) -> None:
        """One linear map that stacks the rows of several. Whisper's key map has no bias; here its bias is zeros."""
        weight, bias = (np.split(self.take(f"{source}/{name}"), len(parts)) for name in ("weight", "bias"))
        for part, rows, values in zip(parts, weight, bias, strict=True):
            self.state[f"{target}.{part}.weight"] = rows
            if part != "key":
                self.state[f"{target}.{part}.bias"] = values
            elif values.any():
                raise TeacherError(f"{source}: the bias of the keys is not zero, so this is not a Whisper model")


def _move_layers(moved: _Moved, side: str) -> int:
    """Move positions and blocks of "encoder" or "decoder"; the number of blocks."""
    count = sum(name.startswith(f"{side}/layer_") and name.endswith("ffn/linear_0/weight") for name in moved.left)
    moved.state[f"{side}.positional_embedding"] = moved.take(f"{side}/position_encodings/encodings")
    for i in range(count):
        old, new = f"{side}/layer_{i}", f"{side}.blocks.{i}"
        moved.layer(f"{old}/self_attention/layer_norm", f"{new}.attn_ln")
        moved.split(f"{old}/self_attention/linear_0", f"{new}.attn", ("query", "key", "value"))
        moved.layer(f"{old}/self_attention/linear_1", f"{new}.attn.out")
        if side == "decoder":
            moved.layer(f"{old}/attention/layer_norm", f"{new}.cross_attn_ln")
            moved.layer(f"{old}/attention/linear_0", f"{new}.cross_attn.query")
            moved.split(f"{old}/attention/linear_1", f"{new}.cross_attn", ("key", "value"))
            moved.layer(f"{old}/attention/linear_2", f"{new}.cross_attn.out")
        moved.layer(f"{old}/ffn/layer_norm", f"{new}.mlp_ln")
        moved.layer(f"{old}/ffn/linear_0", f"{new}.mlp.0")
        moved.layer(f"{old}/ffn/linear_1", f"{new}.mlp.2")
    return count


def _dims(state: dict[str, np.ndarray], layers: dict[str, int], heads: dict[str, int]) -> dict[str, int]:
    """whisper's ModelDimensions, from the shapes of the weights."""
    width, mels, _ = state["encoder.conv1.weight"].shape
    vocabulary, text_width = state["decoder.token_embedding.weight"].shape
    return {
        "n_mels": mels,
        "n_audio_ctx": len(state["encoder.positional_embedding"]),
        "n_audio_state": width,
        "n_audio_head": heads["encoder"],
        "n_audio_layer": layers["encoder"],
        "n_vocab": vocabulary,
        "n_text_ctx": len(state["decoder.positional_embedding"]),
        "n_text_state": text_width,
        "n_text_head": heads["decoder"],
        "n_text_layer": layers["decoder"],
    }


def convert(source: Path) -> bytes:
    """The CTranslate2 file `source` as a checkpoint that whisper reads, weights in their own precision."""
    import torch

    try:
        made = checkpoint(read(source))
    except (KeyError, ValueError, TypeError) as error:
        raise TeacherError(f"{source} does not hold a whole Whisper model: {error}") from error
    state = {name: torch.from_numpy(value.copy()) for name, value in made.state.items()}
    file = io.BytesIO()  # not a path, because torch writes a path's name into the file
    torch.save({"dims": made.dims, "model_state_dict": state}, file)
    return file.getvalue()
