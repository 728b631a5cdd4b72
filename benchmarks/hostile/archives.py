""".npz files and fits whose headers, tables or sizes lie, and archives that unpack to far more than they are."""

from __future__ import annotations

import io
import json
import struct
import warnings
import zipfile
from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.hostile.values import Rng, changed, flipped, text_of


@cache
def bomb(compression: int, megabytes: int = 300) -> bytes:
    """A deflated member's bytes, as a zip with one member "0" of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression, compresslevel=1) as archive, archive.open("0", "w") as member:
        for _ in range(megabytes):
            member.write(bytes(1 << 20))
    return file.getvalue()


def lying_zip(data: bytes, rng: Rng) -> bytes:
    """A zip whose tables say something else: other sizes, encryption, one member twice."""
    out = bytearray(data)
    at = out.rfind(b"PK\x01\x02")
    if at < 0:
        return bytes(out)
    field, size = [(24, 4), (20, 4), (8, 2), (10, 2), (42, 4)][int(rng.integers(5))]  # sizes, flags, method, offset
    lie = int(rng.choice([0, 1, 8, 12, 14, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]))
    out[at + field : at + field + size] = lie.to_bytes(8, "little")[:size]
    return bytes(out)


def member(rng: Rng, array: np.ndarray) -> bytes:
    """An .npy whose header may lie."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    data = file.getvalue()
    shapes = (
        "(10**9,)",
        "(1000000000000,)",
        "(-4,)",
        "(4.0,)",
        "('a',)",
        "(" * 90 + ")" * 90,
        "(True,)",
        "(0, 99999999999999)",
        "()",
    )
    kinds = ("'|O'", "'<f4, <f4'", "'<U0'", "'<U99999999'", "[('a', '<f4')]", "'<V4'", "'<m8'", "'<f16'", "None")
    way = rng.random()
    if rng.random() < 0.4:
        return data
    if way < 0.3:
        return flipped(data, rng, 128)
    header = "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}".format(
        kinds[int(rng.integers(len(kinds)))] if way < 0.5 else "'<f4'",
        "True" if rng.random() < 0.3 else "False",
        shapes[int(rng.integers(len(shapes)))] if way > 0.45 else "(4,)",
    )
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n" + data[-16:]


def npz(
    folder: Path, outside: Path, rng: Rng, names: tuple[str, ...] = ("video", "audio", "w"), path: Path | None = None
) -> Path:
    path = path or folder / "arrays.npz"
    if rng.random() < 0.05:
        inner = zipfile.ZipFile(io.BytesIO(bomb(zipfile.ZIP_DEFLATED))).infolist()[0]
        whole = bomb(zipfile.ZIP_DEFLATED)
        start = 30 + int.from_bytes(whole[26:28], "little") + int.from_bytes(whole[28:30], "little")
        data = whole[start : start + inner.compress_size]
        with zipfile.ZipFile(
            path, "w", zipfile.ZIP_STORED
        ) as archive:  # then the tables are made to say that it is deflated
            archive.writestr(f"{names[0]}.npy", data)
        out = bytearray(path.read_bytes())
        for start, method, size in ((b"PK\x03\x04", 8, 22), (b"PK\x01\x02", 10, 24)):
            at = out.rfind(start) if start == b"PK\x01\x02" else out.find(start)
            out[at + method : at + method + 2] = b"\x08\0"
            out[at + size : at + size + 4] = inner.file_size.to_bytes(4, "little")
        path.write_bytes(out)
        return path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of zipfile, about two members of one name, which is the point
        for name in names:
            for _ in range(2 if rng.random() < 0.05 else 1):
                whole = np.zeros((1, 2, 96, 96), "u1") if name == "video" else np.arange(4, dtype="f4")
                archive.writestr(f"{name}.npy", member(rng, np.asarray(whole)))
    if rng.random() < 0.2:
        path.write_bytes(lying_zip(path.read_bytes(), rng))
    return path


def fit(folder: Path, outside: Path, rng: Rng) -> Path:
    from store.similarity import fitfile

    path = folder / "fit.npz"
    if rng.random() < 0.3:
        return npz(folder, outside, rng, ("header", "a0", "a1"), path)
    with np.load(fitfile.DEFAULT) as file:
        arrays = dict(file)
    header = (
        changed(json.loads(str(arrays.pop("header"))), rng)
        if rng.random() < 0.7
        else json.loads(str(arrays.pop("header")))
    )
    for name in list(arrays):
        if rng.random() < 0.05:
            wrong = [
                arrays[name] * np.nan,
                arrays[name][..., None],
                np.atleast_1d(arrays[name])[:0],
                arrays[name].astype("U3"),
                np.zeros((3, 3)),
                np.array(1),
            ]
            arrays[name] = wrong[int(rng.integers(len(wrong)))]
    np.savez(path, header=np.array(text_of(header, rng)), **arrays)
    return path
