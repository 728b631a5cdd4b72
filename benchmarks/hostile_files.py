"""Hostile files from a seed: checkpoints, weights, fits, detectors, stores and manifests that lie, loop, leave or call.

`make(kind, folder, outside, seed)` writes one case and says what was done to it. Whatever a case asks to be run would make the
file `outside/ran`; whatever leads out leads to `outside`, where a secret lies.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

Rng = np.random.Generator
DEEP = "[" * 100_000
TEXTS = (
    "",
    "\ud800",
    "../../x",
    "/etc/passwd",
    "=1+1",
    "\x1b[2J",
    "a\0b",
    "%s",
    "x" * 70_000,
    "nan",
    "1e999",
    "\udcff",
    "numcodecs.pickle",
)
NUMBERS = (True, -1, 0, 1.5, 1e308, float("nan"), float("inf"), 2**31, 2**62, 2**64, 10**300, -(2**63), 10**12, 10**9)


def value(rng: Rng, depth: int = 0) -> Any:
    """A value that nobody expects where it stands."""
    kind = int(rng.integers(0, 6 if depth < 2 else 4))
    if kind == 0:
        return None
    if kind == 1:
        return TEXTS[int(rng.integers(len(TEXTS)))]
    if kind < 4:
        return NUMBERS[int(rng.integers(len(NUMBERS)))]
    items = [value(rng, depth + 1) for _ in range(int(rng.integers(0, 4)))]
    return items if kind == 4 else {str(TEXTS[int(rng.integers(4))]): item for item in items}


def changed(document: Any, rng: Rng) -> Any:
    """A JSON document with one to three of its parts replaced, removed or added."""
    for _ in range(int(rng.integers(1, 4))):
        spots = list(_spots(document))
        if not spots:
            return value(rng)
        holder, key = spots[int(rng.integers(len(spots)))]
        way = rng.random()
        if way < 0.7:
            holder[key] = value(rng)
        elif way < 0.85:
            del holder[key]
        elif isinstance(holder, dict):
            holder[str(TEXTS[int(rng.integers(len(TEXTS)))])] = value(rng)
        else:
            holder.extend([value(rng)] * int(rng.integers(1, 5)))
    return document


def _spots(part: Any) -> Any:
    for key in list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
        yield part, key
        yield from _spots(part[key])


def text_of(document: Any, rng: Rng) -> str:
    """It as JSON, at times with a part that is nested too deep, or cut off."""
    text = json.dumps(document)
    way = rng.random()
    if way < 0.05:
        return text.replace('"', DEEP + '"', 1)
    if way < 0.1:
        return DEEP
    return text[: int(rng.integers(0, len(text)))] if way < 0.15 else text


def flipped(data: bytes, rng: Rng, front: int | None = None) -> bytes:
    """Some bytes replaced, in front or anywhere; at times cut."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 8))):
        at = int(rng.integers(0, min(front or len(out), len(out))))
        out[at] = int(rng.integers(0, 256))
    return bytes(out[: int(rng.integers(1, len(out)))] if rng.random() < 0.15 else out)


# -- pickles ---------------------------------------------------------------------------------------------------------------


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


# -- .npz ------------------------------------------------------------------------------------------------------------------


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
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
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


# -- stores ----------------------------------------------------------------------------------------------------------------


def sealed(data: bytes) -> bytes:
    """With its CRC-32C behind it."""
    return data + google_crc32c.value(data).to_bytes(4, "little")


def store(folder: Path, outside: Path, rng: Rng, template: Path) -> Path:
    path = folder / "s.zarr"
    shutil.copytree(template, path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    documents = [p for p in files if p.name == "zarr.json"]
    parts = [p for p in files if p.name != "zarr.json"]
    for _ in range(int(rng.integers(1, 3))):
        way = rng.random()
        chosen = documents[int(rng.integers(len(documents)))] if rng.random() < 0.8 else path / "zarr.json"
        part = parts[int(rng.integers(len(parts)))]
        if not chosen.is_file() or not part.is_file():
            continue
        if way < 0.4:
            chosen.write_text(text_of(changed(json.loads(chosen.read_text()), rng), rng))
        elif way < 0.5:
            _named_codec(chosen, rng, outside)
        elif way < 0.65:
            data = bytearray(part.read_bytes()[:-4])
            if data:
                at = int(rng.integers(0, min(24, len(data)))) if rng.random() < 0.7 else int(rng.integers(len(data)))
                data[at : at + 4] = int(
                    rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, len(data), int(rng.integers(2**32))])
                ).to_bytes(4, "little")
            part.write_bytes(sealed(bytes(data)))
        elif way < 0.75:
            _index(part, rng)
        elif way < 0.8:
            part.write_bytes(flipped(part.read_bytes() or b"x", rng))
        elif way < 0.85:
            os.truncate(part, int(rng.choice([0, 10, 2**33])))
        elif way < 0.97:
            _link(part if rng.random() < 0.5 else part.parent.parent, outside)
        else:
            part.unlink()
            os.mkfifo(part)
    return path


def _index(part: Path, rng: Rng) -> None:
    """Entries of a shard's index replaced, under a right checksum."""
    data = bytearray(part.read_bytes())
    entries = 16 * 20
    if len(data) < entries + 4:
        return
    index = bytearray(data[-entries - 4 : -4])
    for _ in range(int(rng.integers(1, 5))):
        at = 8 * int(rng.integers(len(index) // 8))
        index[at : at + 8] = int(rng.choice([0, 1, len(data), 2**40, 2**63, int(rng.integers(len(data)))])).to_bytes(
            8, "little"
        )
    part.write_bytes(bytes(data[: -entries - 4]) + sealed(bytes(index)))


def _link(part: Path, outside: Path) -> None:
    """A file or folder that was moved away, behind a link."""
    if not part.exists():
        return
    away = outside / f"moved-{part.name}-{len(os.listdir(outside))}"
    shutil.move(part, away)
    part.symlink_to(away)


def _named_codec(path: Path, rng: Rng, outside: Path) -> None:
    """An array that asks for another codec, or whose keys lead elsewhere."""
    document = json.loads(path.read_text())
    if document.get("node_type") != "array":
        return
    names = (
        "numcodecs.pickle",
        "numcodecs.json2",
        "numcodecs.msgpack2",
        "vlen-bytes",
        "numcodecs.lzma",
        "gzip",
        "transpose",
        "numcodecs.zlib",
    )
    if rng.random() < 0.5:
        document["codecs"] = [
            {"name": names[int(rng.integers(len(names)))], "configuration": {}},
            *document["codecs"][1:],
        ]
    else:
        ways = ("/../../../outside/", "/../", f"/{outside}/", "//", "", 5, None)
        document["chunk_key_encoding"]["configuration"] = {"separator": ways[int(rng.integers(len(ways)))]}
    path.write_text(json.dumps(document))


# -- manifests -------------------------------------------------------------------------------------------------------------


def manifest(folder: Path, outside: Path, rng: Rng) -> Path:
    import pandas as pd

    columns = [
        "path",
        "label",
        "audio_fake",
        "identities",
        "group",
        "split",
        "audio_segments",
        "listed_frames",
        "id",
        "corpus",
    ]
    columns = columns[: int(rng.integers(1, len(columns) + 1))]
    parts = (
        *("[[0, Infinity]]", "[[1e999, 2]]", DEEP, '["\\ud800"]', "[[2, 1]]", "yes", "2", "-5", "a\0b"),
        *('"unclosed', "x" * 200_000, "", "1,2,3"),
    )
    if rng.random() < 0.5:
        path = folder / "m.csv"
        rows = [
            ",".join(str(parts[int(rng.integers(len(parts)))]) if rng.random() < 0.05 else "0" for _ in columns)
            for k in range(5)
        ]
        rows = [f"{k}{row}" for k, row in enumerate(rows)]
        text = ",".join(columns) + "\n" + "\n".join(rows)
        data = text.encode("utf-16" if rng.random() < 0.1 else "utf-8-sig")
        path.write_bytes(flipped(data, rng) if rng.random() < 0.3 else data)
        return path
    path = folder / "m.parquet"
    import datetime

    choices: tuple[list[Any], ...] = (
        *(
            [1, 2],
            [1.5, None],
            [True, False],
            [[1], [2]],
            [["a"], None],
            [{"a": 1}, {"a": 2}],
            ["a", "b"],
            [b"a", b"\xff"],
        ),
        *([datetime.date(2020, 1, 1)] * 2, [float("inf"), float("nan")], [2**63, 1], [[[0, float("inf")]], [[0, 1]]]),
    )
    table = {name: choices[int(rng.integers(len(choices)))] for name in columns if rng.random() < 0.3}
    table.setdefault("path", ["a.mp4", "b.mp4"])
    if rng.random() < 0.5:
        table["path"] = ["a.mp4", "b.mp4"]
    pd.DataFrame(table).to_parquet(path, index=False)
    if rng.random() < 0.3:
        path.write_bytes(flipped(path.read_bytes(), rng))
    return path


KINDS: dict[str, Callable[..., Path]] = {
    "checkpoint": checkpoint, "npz": npz, "fit": fit, "detector": detector, "store": store, "manifest": manifest,
}  # fmt: skip


def make(kind: str, folder: Path, outside: Path, seed: int, template: Path) -> Path:
    """One case, the same for the same seed; `template` is a sound store of 20 chunks a shard."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    return KINDS[kind](folder, outside, rng, **({"template": template} if kind == "store" else {}))
