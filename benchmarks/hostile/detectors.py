"""Detectors (this project's safetensors files) whose header, description or weights are wrong."""

from __future__ import annotations

import json
import struct
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.hostile.values import Rng, changed, text_of


def detector(folder: Path, outside: Path, rng: Rng) -> Path:
    path = folder / "model.safetensors"
    header, data = _detector()
    header = json.loads(header)
    way = rng.random()
    if way < 0.5:
        about = json.loads(header["__metadata__"]["concord-av"])
        header["__metadata__"]["concord-av"] = text_of(changed(about, rng), rng)
    elif way < 0.75:
        changed(header, rng)
    text = (text_of(header, rng) if way > 0.4 else json.dumps(header)).encode()
    length = int(rng.choice([0, 1, 2**31, 2**62, len(text) + 8])) if way > 0.92 else len(text)
    if 0.75 < way < 0.85:
        numbers = np.frombuffer(data, "<f4").copy()
        numbers[int(rng.integers(len(numbers)))] = np.nan
        data = numbers.tobytes()
    path.write_bytes(struct.pack("<Q", length) + text + data)
    return path


@cache
def _detector() -> tuple[bytes, bytes]:
    import tempfile

    import torch

    from student.checkpoint import save_model
    from student.models import build

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        save_model(
            Path(folder),
            build("lite", width=32, temporal_layers=1),
            "lite",
            {"threshold": 0.0, "temperature": 1.0, "config": {}},
        )
        data = (Path(folder) / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return data[8 : 8 + length], data[8 + length :]
