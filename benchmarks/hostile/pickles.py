"""Pickles that ask for calls, grow, nest or loop, in both containers of PyTorch checkpoints."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np

from benchmarks.hostile.archives import lying_zip
from benchmarks.hostile.values import Rng, flipped


def calls(outside: Path) -> list[bytes]:
    """Programs that would leave a mark if they ran."""
    shell, code = f"touch {outside}/ran", f"open({str(outside / 'ran')!r},'w')"
    named = {
        ("posix", "system"): shell,
        ("builtins", "eval"): code,
        ("builtins", "exec"): code,
        ("os", "mkdir"): f"{outside}/ran",
    }
    return [
        b"c%s\n%s\n" % (module.encode(), name.encode()) + b"X" + struct.pack("<I", len(arg)) + arg.encode() + b"\x85R"
        for (module, name), arg in named.items()
    ]


GLOBALS = (
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n", b"cnumpy\ndtype\n", b"c__builtin__\nset\n",
    b"cnumpy.core.multiarray\n_reconstruct\n", b"c_codecs\nencode\n", b"cargparse\nNamespace\n", b"ctorch\nFloatStorage\n",
    b"comegaconf.dictconfig\nDictConfig\n", b"ctorch\nSize\n", b"ctorch.nn.parameter\nParameter\n", b"ctypes\nFunctionType\n",
)  # fmt: skip
PIECES = (
    *(
        b"K\x01",
        b"X\x01\x00\x00\x00a",
        b"q\x00",
        b"h\x00",
        b"\x94",
        b"Q",
        b"N",
        b"\x88",
        b"G" + struct.pack(">d", 1e308),
    ),
    *(bytes([code]) for code in b"]})(t\x85\x86\x87easuRb\x81201"),
    b"\x95" + b"\xff" * 8,
    b"\x8e" + b"\xff" * 8,
)
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"


def program(rng: Rng, outside: Path) -> bytes:
    """A pickle: a dict of one value, made of opcodes that may or may not follow each other."""
    way = rng.random()
    n = int(10 ** rng.uniform(1, 4))
    if way < 0.15:
        body = calls(outside)[int(rng.integers(4))]
    elif way < 0.3:
        body = b")" + b"2\x86" * min(n, 200)
        body = {0: b"}" + body + b"K\x01s", 1: b"\x8f(" + body + b"\x90", 2: b"(" + body + b"\x91"}[
            int(rng.integers(3))
        ]
    elif way < 0.4:
        numbers = b"".join(
            b"\x8a\x09" + struct.pack("<Q", int(rng.integers(0, 2**62))) + b"\0" for _ in range(min(n, 500))
        )
        size, stride = b"(" + numbers + b"t", b"(" + b"K\x00" * int(rng.integers(0, 500)) + b"t"
        body = GLOBALS[0] + b"(" + STORAGE + b"K\x00" + size + stride + b"\x89}tR"
    elif way < 0.5:
        body = b"](K\x00e" + b"".join(b"q%s0](%se" % (bytes([k]), b"h%s" % bytes([k]) * 10) for k in range(min(n, 60)))
    elif way < 0.6:
        big = b"B" + struct.pack("<I", 50_000) + bytes(50_000)
        body = big + b"q\x010](" + b"c__builtin__\nlist\n](h\x01e\x85R" * n + b"e"
    elif way < 0.7:
        body = b"](" + b"]}\x8f)"[int(rng.integers(4)) :][:1] * (n * 300) + b"e"
    elif way < 0.75:
        body = b"\x8b" + struct.pack("<I", int(rng.integers(0, 2**32))) + bytes(int(rng.integers(0, 100_000)))
    else:
        parts = (*PIECES, STORAGE, *GLOBALS)
        body = b"".join(parts[int(i)] for i in rng.integers(0, len(parts), int(rng.integers(3, 60))))
    return b"\x80\x02}X\x01\x00\x00\x00w" + body + b"s."


def checkpoint(folder: Path, outside: Path, rng: Rng) -> Path:
    import torch

    path = folder / "weights.pt"
    way = rng.random()
    if way < 0.25:
        old = bool(rng.random() < 0.5)
        torch.save(
            {"model": {"w": torch.ones(40), "v": torch.zeros(3, 2)}, "cfg": {"a": [1, "b"]}},
            path,
            _use_new_zipfile_serialization=not old,
        )
        path.write_bytes(flipped(path.read_bytes(), rng, 700 if rng.random() < 0.7 else None))
        return path
    if way < 0.35:
        legacy = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03."
        path.write_bytes(legacy + program(rng, outside) + program(rng, outside) + program(rng, outside))
        return path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if rng.random() < 0.5 else zipfile.ZIP_STORED) as archive:
        archive.writestr("a/data.pkl", program(rng, outside))
        archive.writestr("a/data/0", np.arange(4, dtype="<f4").tobytes())
    if way > 0.9:
        path.write_bytes(lying_zip(path.read_bytes(), rng))
    return path
