"""Reads Whisper weights in CTranslate2's file format and writes them as openai-whisper's checkpoint.

The file (version 6, little-endian): u32 version; string specification; u32 revision; u32 count; then for each variable
a string name, u8 rank, rank x u32 shape, u8 type, u32 bytes, data; last u32 count of aliases and their pairs of
strings. A string is u16 length, with its closing NUL, and bytes. Float weights only: quantised files are refused, as
they would not be the same teacher.
"""

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from teachers.base import TeacherError

VERSION = 6
TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
FLOATS = ("<f4", "<f2")


def read(path: Path) -> dict[str, np.ndarray]:
    """All variables by name, aliases included; TeacherError if the file is cut or of another format."""
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


def checkpoint(variables: dict[str, np.ndarray]) -> dict[str, Any]:
    """openai-whisper's {"dims", "model_state_dict"} with numpy arrays; every weight is used exactly once."""
    left = dict(variables)
    out: dict[str, np.ndarray] = {}

    def take(name: str) -> np.ndarray:
        value = left.pop(name)
        if value.dtype.str not in FLOATS:
            raise TeacherError(
                f"CTranslate2 weights of type {value.dtype} are quantised; take a float16 or float32 file"
            )
        return value

    def move(source: str, target: str) -> None:
        names = (
            {"gamma": "weight", "beta": "bias"} if f"{source}/gamma" in left else {"weight": "weight", "bias": "bias"}
        )
        for old, new in names.items():
            out[f"{target}.{new}"] = take(f"{source}/{old}")

    def split(source: str, targets: list[str]) -> None:
        """One linear map whose rows are several; the key map has no bias in Whisper, and zeros here."""
        weight, bias = take(f"{source}/weight"), take(f"{source}/bias")
        for target, rows, values in zip(
            targets, np.split(weight, len(targets)), np.split(bias, len(targets)), strict=True
        ):
            out[f"{target}.weight"] = rows
            if not target.endswith(".key"):
                out[f"{target}.bias"] = values
            elif values.any():
                raise TeacherError(f"{source}: the bias of the keys is not zero, so this is no Whisper model")

    counts = {}
    for side in ("encoder", "decoder"):
        counts[side] = sum(name.startswith(f"{side}/layer_") and name.endswith("ffn/linear_0/weight") for name in left)
        out[f"{side}.positional_embedding"] = take(f"{side}/position_encodings/encodings")
        for i in range(counts[side]):
            old, new = f"{side}/layer_{i}", f"{side}.blocks.{i}"
            move(f"{old}/self_attention/layer_norm", f"{new}.attn_ln")
            split(f"{old}/self_attention/linear_0", [f"{new}.attn.{part}" for part in ("query", "key", "value")])
            move(f"{old}/self_attention/linear_1", f"{new}.attn.out")
            if side == "decoder":
                move(f"{old}/attention/layer_norm", f"{new}.cross_attn_ln")
                move(f"{old}/attention/linear_0", f"{new}.cross_attn.query")
                split(f"{old}/attention/linear_1", [f"{new}.cross_attn.{part}" for part in ("key", "value")])
                move(f"{old}/attention/linear_2", f"{new}.cross_attn.out")
            move(f"{old}/ffn/layer_norm", f"{new}.mlp_ln")
            move(f"{old}/ffn/linear_0", f"{new}.mlp.0")
            move(f"{old}/ffn/linear_1", f"{new}.mlp.2")
    move("encoder/conv1", "encoder.conv1")
    move("encoder/conv2", "encoder.conv2")
    move("encoder/layer_norm", "encoder.ln_post")
    move("decoder/layer_norm", "decoder.ln")
    out["decoder.token_embedding.weight"] = take("decoder/embeddings/weight")
    left.pop("decoder/projection/weight", None)  # the same as the embedding
    heads = {side: int(left.pop(f"{side}/num_heads")) for side in ("encoder", "decoder")}
    unknown = [name for name, value in left.items() if value.ndim > 0]
    if unknown:
        raise TeacherError(f"CTranslate2 file has weights that no Whisper model has: {', '.join(sorted(unknown)[:5])}")
    states, mels, _ = out["encoder.conv1.weight"].shape
    dims = {
        "n_mels": mels,
        "n_audio_ctx": len(out["encoder.positional_embedding"]),
        "n_audio_state": states,
        "n_audio_head": heads["encoder"],
        "n_audio_layer": counts["encoder"],
        "n_vocab": len(out["decoder.token_embedding.weight"]),
        "n_text_ctx": len(out["decoder.positional_embedding"]),
        "n_text_state": out["decoder.token_embedding.weight"].shape[1],
        "n_text_head": heads["decoder"],
        "n_text_layer": counts["decoder"],
    }
    return {"dims": dims, "model_state_dict": out}


def convert(source: Path, target: Path) -> None:
    """Write the CTranslate2 file `source` as a checkpoint that whisper reads, weights in the precision they have."""
    import torch

    try:
        made = checkpoint(read(source))
    except (KeyError, ValueError, TypeError) as error:
        raise TeacherError(f"{source} holds no whole Whisper model: {error}") from error
    state = {name: torch.from_numpy(value.copy()) for name, value in made["model_state_dict"].items()}
    with target.open("wb") as file:  # a file object: given a path, torch writes the path's name into the file
        torch.save({"dims": made["dims"], "model_state_dict": state}, file)
