"""Reads PyTorch checkpoints from others, under the policy of `unpickle`: no code named in them is run.

Objects of fairseq and sentencepiece become `Stub`s (neither package is needed), configurations of omegaconf become
plain dicts and lists, and tensors are placed on the CPU. Both containers are read: zip archives (members stored or
deflated) and the older one (torch below 1.6). `last_optimizer_state` is skipped: it is not needed, and it takes two
thirds of a file.
"""

import argparse
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from teachers.base import TeacherError
from teachers.files.makers import CONTAINERS, NODES, Global, Storage, Strided, Stub
from teachers.files.unpickle import PICKLE_LIMIT, Unpickler

LEFT_OUT = "last_optimizer_state"  # key of a checkpoint whose value is read as None
UNPACKED_LIMIT = 1 << 28  # bytes of tensors that a file of any size may unpack to; above that RATIO_LIMIT applies
RATIO_LIMIT = 4  # unpacked bytes per byte of the file; torch does not compress, and weights hardly shrink
NODES_LIMIT = 2_000_000  # values of a checkpoint, fully expanded: a shared value counts every time
PART = 1 << 20  # bytes of a storage that are read at a time
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older container; next, its bytes
LEGACY_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
LEGACY_VERSION = 1001


def read(path: Path | str) -> dict[Any, Any]:
    """The checkpoint at `path`: dict of plain values, numpy values, CPU tensors and `Stub`s.

    Raises TeacherError, which names the file, if it asks for anything except data, is damaged or truncated, is not a
    checkpoint, or unpacks to far more than its size.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(len(LEGACY_START))
            file.seek(0)
            if start == LEGACY_START:
                source: _Zip | _Legacy = _Legacy(path, file)
            elif start.startswith(b"PK"):
                source = _Zip(path, file)
            else:
                raise TeacherError(
                    f"{path} is not a PyTorch checkpoint: it is neither a zip archive nor of the older format"
                )
            content = source.content
            if not isinstance(content, dict):
                raise TeacherError(f"{path}: a checkpoint holds a dict, this one a {type(content).__name__}")
            if LEFT_OUT in content:
                content[LEFT_OUT] = None
            return _Plain(source.numbers, path.stat().st_size)(content)
    except TeacherError:
        raise
    except RecursionError as error:
        raise TeacherError(f"{path} nests its values too deeply for a checkpoint, or in a circle") from error
    except (OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise TeacherError(f"{path} is damaged or not a checkpoint: {_said(error)}") from error
    except (pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, MemoryError) as error:
        raise TeacherError(f"{path} is damaged or not a checkpoint: {_said(error)}") from error


class _Zip:
    """The container of torch 1.6 and later: NAME/data.pkl, NAME/data/KEY."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._zip = zipfile.ZipFile(file)
        names = [name for name in self._zip.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(names) != 1:
            raise TeacherError(f"{path} is a zip archive but not a PyTorch checkpoint: it has no data.pkl")
        self._folder = names[0].partition("/")[0]
        order = f"{self._folder}/byteorder"
        if order in self._zip.namelist() and self._open(self._zip.getinfo(order)).read(16) != b"little":
            raise TeacherError(f"{path} was saved on a big-endian machine; load and save it again on this one")
        info = self._zip.getinfo(names[0])
        if info.file_size > PICKLE_LIMIT:
            raise TeacherError(f"{path}: its data.pkl unpacks to {info.file_size} bytes; a checkpoint has far fewer")
        self._left = max(UNPACKED_LIMIT, RATIO_LIMIT * path.stat().st_size)
        self.content = Unpickler(path, BytesIO(self._open(info).read())).load()

    def numbers(self, storage: Storage) -> bytearray:
        info = self._zip.getinfo(f"{self._folder}/data/{storage.key}")
        if info.file_size != storage.nbytes:
            raise TeacherError(
                f"{self._path}: storage {storage.key} has {info.file_size} bytes; expected {storage.nbytes}"
            )
        self._left -= info.file_size
        if self._left < 0:
            raise TeacherError(
                f"{self._path} unpacks to more than {RATIO_LIMIT} times its size; it is not read further"
            )
        data = bytearray(info.file_size)
        with memoryview(data) as view, self._open(info) as member:
            for at in range(0, len(data), PART):
                if member.readinto(view[at : at + PART]) != len(view[at : at + PART]):
                    raise EOFError(f"storage {storage.key} is cut off")
            member.read(1)  # reading to the end checks the CRC
        return data

    def _open(self, info: zipfile.ZipInfo) -> zipfile.ZipExtFile:
        """A member, stored or deflated: other methods may unpack any number of bytes at once."""
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{info.filename} is compressed in a way that torch does not use")
        return cast(zipfile.ZipExtFile, self._zip.open(info))


class _Legacy:
    """The container before torch 1.6: five pickles, then the storages one after another, each after its length."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._file = file
        magic, version, system = (Unpickler(path, file).load() for _ in range(3))
        little = isinstance(system, dict) and system.get("little_endian") is True
        if type(magic) is not int or magic != LEGACY_MAGIC or version != LEGACY_VERSION or not little:
            raise TeacherError(
                f"{path} is of an unknown variant of the older format; load and save it with a newer torch"
            )
        unpickler = _Legacy._Recording(path, file)
        self.content = unpickler.load()
        self._at: dict[str, int] = {}
        self._size = path.stat().st_size
        keys = Unpickler(path, file).load()
        if not isinstance(keys, list) or not all(type(key) is str for key in keys):
            raise TypeError("its list of storages holds no names")
        for key in keys:
            (numel,) = struct.unpack("<q", file.read(8))
            storage = unpickler.storages[key]
            if numel != storage.numel:
                raise TeacherError(f"{path}: storage {key} has {numel} elements; expected {storage.numel}")
            self._at[key] = file.tell()
            file.seek(storage.nbytes, 1)

    class _Recording(Unpickler):
        """Remembers the length of each storage, which only the pickle gives."""

        def __init__(self, path: Path, file: BinaryIO) -> None:
            super().__init__(path, file)
            self.storages: dict[str, Storage] = {}

        def persistent_load(self, pid: Any) -> Storage:
            storage = super().persistent_load(pid)
            return self.storages.setdefault(storage.key, storage)

    def numbers(self, storage: Storage) -> bytearray:
        if storage.nbytes > self._size:
            raise EOFError(f"storage {storage.key} is cut off")
        self._file.seek(self._at[storage.key])
        data = bytearray(self._file.read(storage.nbytes))
        if len(data) != storage.nbytes:
            raise EOFError(f"storage {storage.key} is cut off")
        return data


class _Plain:
    """Turns the unpickler's result into plain values; shared objects stay shared."""

    def __init__(self, numbers: Callable[[Storage], bytearray], size: int) -> None:
        """`numbers` returns the bytes of a storage; `size` is that of the file: arrays in the pickle are copied up to
        it."""
        self._numbers = numbers
        self._copies = max(size, PICKLE_LIMIT)
        self._storages: dict[str, tuple[Storage, Any]] = {}
        self._weights: dict[int, int] = {}  # number of values in it, by id
        self._done: dict[int, tuple[Any, Any]] = {}  # by id; the original is kept, so that its id stays its own

    def __call__(self, value: Any) -> Any:
        if id(value) in self._done:
            return self._done[id(value)][1]
        kind = type(value)
        if kind is dict:
            found: Any = {}
            self._done[id(value)] = value, found
            found.update((key, self(item)) for key, item in value.items())
            self._weigh(value, value.values())
            return found
        if kind is list:
            found = []
            self._done[id(value)] = value, found
            found.extend(self(item) for item in value)
            self._weigh(value, value)
            return found
        if kind is tuple:
            found = tuple(self(item) for item in value)
            self._weigh(value, value)
        elif kind is Strided:
            found = self._tensor(value)
        elif kind is Stub:
            state = value.state
            found = self._object(value)
            self._weigh(value, (state,))
        elif kind is Global:
            found = value.name
        else:
            return value
        self._done[id(value)] = value, found
        return found

    def _weigh(self, value: Any, parts: Iterable[Any]) -> None:
        """Refuse data that is small in the file and huge when expanded: lists that contain one list many times."""
        total = 1 + sum(self._weights.get(id(part), 1) for part in parts)
        if total > NODES_LIMIT:
            raise ValueError(f"it repeats itself: expanded, it has more than {NODES_LIMIT} values")
        self._weights[id(value)] = total

    def _tensor(self, value: Strided) -> Any:
        import torch

        storage = value.storage
        if storage.key not in self._storages:
            dtype = getattr(torch, storage.dtype)
            data = self._numbers(storage)
            self._storages[storage.key] = (
                storage,
                torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype),
            )
        known, flat = self._storages[storage.key]
        if known != storage:
            raise TypeError(f"storage {storage.key} is used as {known.dtype} and as {storage.dtype}")
        return flat.as_strided(value.size, value.stride, value.offset)

    def _object(self, stub: Stub) -> Any:
        name = stub.kind.rpartition(".")[2]
        if stub.kind in CONTAINERS:
            return self(stub.state["_content"])
        if name in NODES:
            return self(stub.state["_val"])
        if name == "Namespace":
            return argparse.Namespace(**self(stub.state or {}))
        if name == "dtype":
            return _dtype(stub)
        if name == "scalar":
            dtype, data = stub.args
            return np.frombuffer(data, _dtype(dtype), count=1)[0]
        if name == "_reconstruct":
            _, shape, dtype, fortran, data = stub.state
            self._copies -= len(data)
            if self._copies < 0:
                raise ValueError("its arrays hold more than the file")
            return np.frombuffer(data, _dtype(dtype)).reshape(shape, order="F" if fortran else "C").copy()
        stub.state = self(stub.state)
        return stub


def _dtype(stub: Stub) -> np.dtype:
    """A dtype of numbers; others (objects above all) are refused."""
    code, order = stub.args[0], stub.state[1]
    if stub.kind != "numpy.dtype" or not re.fullmatch(r"[biufc]\d+", code) or order not in ("<", ">", "|", "="):
        raise TypeError(f"a numpy type that does not hold numbers: {code}")
    return np.dtype(order + code)


def _said(error: Exception) -> str:
    """The first line of an error's text, or a substitute if it has none."""
    return str(error).partition("\n")[0] or (
        "it ends too early" if isinstance(error, EOFError) else type(error).__name__
    )
