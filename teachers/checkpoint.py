"""Reads PyTorch checkpoints of others without running anything that they ask for.

A checkpoint is a pickle, a program that may call whatever it names. Here a name only ever becomes an inert `Global`, and
what "calls" it is our own table of makers: nothing on the unpickler's stack can be called, has attributes that matter or
is known to the rest of Python. A name outside the table stops the reading before anything else happens.

Fairseq's and sentencepiece's objects become `Stub`s (neither package is needed), configurations of omegaconf plain dicts
and lists, tensors CPU tensors wherever they were saved. Both containers are read: zip archives (members stored or deflated)
and the older one (torch below 1.6). `last_optimizer_state` is left out: nobody asks for it, and it is two thirds of a file.
torch.load(weights_only=True) is not used: its list is global to the process, it hands out live classes and functions, and it
reads the optimizer's state.
"""

import argparse
import math
import pickle
import re
import struct
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np

from teachers.base import TeacherError

LEFT_OUT = "last_optimizer_state"  # key of a checkpoint that is read as None
PICKLE_LIMIT = 1 << 28  # bytes of the pickle, unpacked; real ones have a few hundred kB
UNPACKED_LIMIT = 1 << 30  # bytes of tensors that any file may unpack to; beyond that RATIO_LIMIT holds
RATIO_LIMIT = 100  # unpacked bytes for each byte of the file
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the older container; its bytes:
LEGACY_START = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
LEGACY_VERSION = 1001

STORAGES = {  # torch's storage classes: dtype name, bytes an element
    "torch.DoubleStorage": ("float64", 8),
    "torch.FloatStorage": ("float32", 4),
    "torch.HalfStorage": ("float16", 2),
    "torch.BFloat16Storage": ("bfloat16", 2),
    "torch.LongStorage": ("int64", 8),
    "torch.IntStorage": ("int32", 4),
    "torch.ShortStorage": ("int16", 2),
    "torch.CharStorage": ("int8", 1),
    "torch.ByteStorage": ("uint8", 1),
    "torch.BoolStorage": ("bool", 1),
    "torch.ComplexFloatStorage": ("complex64", 8),
    "torch.ComplexDoubleStorage": ("complex128", 16),
}
NODES = ("AnyNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode", "EnumNode", "BytesNode", "PathNode")
CONTAINERS = ("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig")
STUBS = (
    *CONTAINERS,
    *(f"omegaconf.nodes.{name}" for name in NODES),
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "argparse.Namespace",
    "fairseq.data.dictionary.Dictionary",
    "fairseq.data.encoders.sentencepiece_bpe.SentencepieceBPE",
    "sentencepiece.SentencePieceProcessor",
    "numpy.dtype",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
)
NAMES_ONLY = (  # stand for a type somewhere, are never called
    *STORAGES,
    "typing.Any",
    "numpy.ndarray",
    *(f"{module}.{name}" for module in ("__builtin__", "builtins") for name in ("str", "float", "bool", "tuple")),
)
OPCODES = [
    getattr(pickle, name)[0]
    for name in (
        "PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT "
        "BINUNICODE SHORT_BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 "
        "TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS EMPTY_SET ADDITEMS FROZENSET BINGET "
        "LONG_BINGET BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL BINPERSID"
    ).split()
]


class Global(NamedTuple):
    """A name that the pickle refers to; not the thing that it names."""

    name: str


class Stub:
    """An object that is not made: the name of its class, what it was to be called with, and its state."""

    __slots__ = ("args", "kind", "state")

    def __init__(self, kind: str, args: tuple) -> None:
        self.kind = kind
        self.args = args
        self.state: Any = None

    def __repr__(self) -> str:
        return f"<{self.kind}>"


class Storage(NamedTuple):
    """Numbers in the file: `numel` of `dtype` under `key`."""

    key: str
    dtype: str
    nbytes: int
    numel: int


class Strided(NamedTuple):
    """A tensor in a storage, not read yet."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read(path: Path | str) -> dict[Any, Any]:
    """The checkpoint at `path`: dict of plain values, numpy values, CPU tensors and `Stub`s.

    Raises TeacherError with the name of the file, and of what it asked for, where it asks for anything but data; where it is
    damaged, cut off, no checkpoint, or unpacks to far more than its size.
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
                    f"{path} is no PyTorch checkpoint: it is neither a zip archive nor of the older format"
                )
            content = source.content
            if not isinstance(content, dict):
                raise TeacherError(f"{path}: a checkpoint holds a dict, this one a {type(content).__name__}")
            if LEFT_OUT in content:
                content[LEFT_OUT] = None
            return _Plain(source.numbers)(content)
    except TeacherError:
        raise
    except RecursionError as error:
        raise TeacherError(f"{path} nests its values too deep for a checkpoint, or in a circle") from error
    except (OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise TeacherError(f"{path} is damaged or no checkpoint: {_said(error)}") from error
    except (pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, MemoryError) as error:
        raise TeacherError(f"{path} is damaged or no checkpoint: {_said(error)}") from error


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler (the one in Python) with few opcodes, and none that calls anything of the pickle's choice."""

    stack: list[Any]  # the base class sets both
    append: Callable[[Any], None]

    def __init__(self, path: Path, file: BinaryIO) -> None:
        super().__init__(file)
        self.path = path

    def load(self) -> Any:
        try:
            return super().load()
        except KeyError as error:  # of `dispatch`, or of a value that was never stored
            raise pickle.UnpicklingError(f"no opcode or value {error}") from error

    def find_class(self, module: str, name: str) -> Global:
        full = f"{module}.{name}"
        if "." in name or (full not in MAKERS and full not in NAMES_ONLY):
            today = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))  # protocols 0 to 2
            raise TeacherError(
                f"{self.path} asks for '{'.'.join(today)}', which weights do not need: refused, and nothing of the file was "
                "run; take the checkpoint from a source that you trust"
            )
        return Global(full)

    def persistent_load(self, pid: Any) -> Storage:
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage" or pid[5:] not in ((), (None,)):
            raise pickle.UnpicklingError("a reference that is no storage")
        _, kind, key, _, numel = pid[:5]
        if type(kind) is not Global or kind.name not in STORAGES or type(key) is not str or not _counts((numel,)):
            raise pickle.UnpicklingError("a storage of unknown kind")
        dtype, itemsize = STORAGES[kind.name]
        return Storage(key, dtype, numel * itemsize, numel)

    def load_call(self) -> None:
        """REDUCE and NEWOBJ: the same to us."""
        args = self.stack.pop()
        called = self.stack.pop()
        if type(called) is not Global or called.name not in MAKERS or type(args) is not tuple:
            raise pickle.UnpicklingError("a call of what cannot be called")
        self.append(MAKERS[called.name](*args))

    def load_build(self) -> None:
        """BUILD: a stub keeps its state; what a dict has beside its items (torch's format version) is dropped."""
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is Stub and target.state is None:
            target.state = state
        elif type(target) is not dict:
            raise pickle.UnpicklingError(f"a state for a {type(target).__name__}")

    # What is not listed fails as unknown.
    dispatch: ClassVar[dict[int, Any]] = {
        **{code: pickle._Unpickler.dispatch[code] for code in OPCODES},
        pickle.REDUCE[0]: load_call,
        pickle.NEWOBJ[0]: load_call,
        pickle.BUILD[0]: load_build,
    }


class _Zip:
    """The container of torch 1.6 and later: NAME/data.pkl, NAME/data/KEY."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._zip = zipfile.ZipFile(file)
        names = [name for name in self._zip.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(names) != 1:
            raise TeacherError(f"{path} is a zip archive but no PyTorch checkpoint: it has no data.pkl")
        self._folder = names[0].partition("/")[0]
        order = f"{self._folder}/byteorder"
        if order in self._zip.namelist() and self._zip.open(order).read(16) != b"little":
            raise TeacherError(f"{path} was saved on a big-endian machine; load and save it again on this one")
        info = self._zip.getinfo(names[0])
        if info.file_size > PICKLE_LIMIT:
            raise TeacherError(f"{path}: its data.pkl unpacks to {info.file_size} bytes; no checkpoint has that many")
        self._left = max(UNPACKED_LIMIT, RATIO_LIMIT * path.stat().st_size)
        self.content = _Unpickler(path, BytesIO(self._zip.read(info))).load()

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
        return bytearray(self._zip.read(info))  # which checks its CRC


class _Legacy:
    """The container before torch 1.6: five pickles, then the storages one after another, each behind its length."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._file = file
        magic, version, system = (_Unpickler(path, file).load() for _ in range(3))
        if magic != LEGACY_MAGIC or version != LEGACY_VERSION or not dict(system).get("little_endian"):
            raise TeacherError(
                f"{path} is of an unknown variant of the older format; load and save it with a newer torch"
            )
        unpickler = _Legacy._Recording(path, file)
        self.content = unpickler.load()
        self._at: dict[str, int] = {}
        for key in _Unpickler(path, file).load():
            (numel,) = struct.unpack("<q", file.read(8))
            storage = unpickler.storages[key]
            if numel != storage.numel:
                raise TeacherError(f"{path}: storage {key} has {numel} elements; expected {storage.numel}")
            self._at[key] = file.tell()
            file.seek(storage.nbytes, 1)

    class _Recording(_Unpickler):
        """Knows how long each storage is, which the file says only in the pickle."""

        def __init__(self, path: Path, file: BinaryIO) -> None:
            super().__init__(path, file)
            self.storages: dict[str, Storage] = {}

        def persistent_load(self, pid: Any) -> Storage:
            storage = super().persistent_load(pid)
            return self.storages.setdefault(storage.key, storage)

    def numbers(self, storage: Storage) -> bytearray:
        self._file.seek(self._at[storage.key])
        data = bytearray(self._file.read(storage.nbytes))
        if len(data) != storage.nbytes:
            raise EOFError(f"storage {storage.key} is cut off")
        return data


class _Plain:
    """Plain values from what the unpickler gave; what was shared stays shared."""

    def __init__(self, numbers: Callable[[Storage], bytearray]) -> None:
        self._numbers = numbers
        self._storages: dict[str, tuple[Storage, Any]] = {}
        self._done: dict[int, tuple[Any, Any]] = {}  # by id; the original is kept, so that its id stays its own

    def __call__(self, value: Any) -> Any:
        if id(value) in self._done:
            return self._done[id(value)][1]
        kind = type(value)
        if kind is dict:
            found: Any = {}
            self._done[id(value)] = value, found
            found.update((key, self(item)) for key, item in value.items())
            return found
        if kind is list:
            found = []
            self._done[id(value)] = value, found
            found.extend(self(item) for item in value)
            return found
        if kind is tuple:
            found = tuple(self(item) for item in value)
        elif kind is Strided:
            found = self._tensor(value)
        elif kind is Stub:
            found = self._object(value)
        elif kind is Global:
            found = value.name
        else:
            return value
        self._done[id(value)] = value, found
        return found

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
            return np.frombuffer(data, _dtype(dtype)).reshape(shape, order="F" if fortran else "C").copy()
        stub.state = self(stub.state)
        return stub


def _dtype(stub: Stub) -> np.dtype:
    """A dtype of numbers; others (objects above all) are refused."""
    code, order = stub.args[0], stub.state[1]
    if stub.kind != "numpy.dtype" or not re.fullmatch(r"[biufc]\d+", code) or order not in ("<", ">", "|", "="):
        raise TypeError(f"a numpy type that holds no numbers: {code}")
    return np.dtype(order + code)


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> Strided:
    """torch._utils._rebuild_tensor_v2, without gradients and hooks."""
    if type(storage) is not Storage or type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride):
        raise TypeError("a tensor without storage or shape")
    if not _counts((offset, *size, *stride)):
        raise TypeError("a tensor whose shape is not of whole numbers")
    numel = math.prod(size)
    end = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) + 1 if numel else offset
    if max(end, numel) > storage.numel:
        raise ValueError(f"a tensor of shape {size} in a storage of {storage.numel} elements")
    return Strided(storage, offset, size, stride)


def _parameter(data: Any, requires_grad: Any, hooks: Any) -> Strided:
    """torch._utils._rebuild_parameter."""
    if type(data) is not Strided:
        raise TypeError("a parameter that is no tensor")
    return data


def _encode(text: Any, encoding: Any) -> bytes:
    """_codecs.encode as protocol 2 writes bytes."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise TypeError("text encoded as something else than bytes")
    return text.encode("latin1")


def _defaultdict(factory: Any = None) -> dict:
    if factory is not None and type(factory) is not Global:
        raise TypeError("a defaultdict of something that is no type")
    return {}


def _stub(kind: str) -> Callable[..., Stub]:
    return lambda *args: Stub(kind, args)


def _plain_maker(kind: type, most: int) -> Callable[..., Any]:
    """`kind` called with at most `most` arguments, which are lists, dicts, tuples or whole numbers."""

    def make(*args: Any) -> Any:
        if len(args) > most or any(type(arg) not in (list, dict, tuple, int) for arg in args):
            raise TypeError(f"{kind.__name__} of odd arguments")
        return kind(*args)

    return make


MAKERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "_codecs.encode": _encode,
    "collections.OrderedDict": _plain_maker(dict, 1),
    "collections.defaultdict": _defaultdict,
    **{name: _stub(name) for name in STUBS},
    **{
        f"{module}.{name}": _plain_maker(kind, most)
        for module in ("__builtin__", "builtins")
        for name, kind, most in [
            ("dict", dict, 1),
            ("list", list, 1),
            ("set", set, 1),
            ("frozenset", frozenset, 1),
            ("int", int, 0),
            ("long", int, 0),
            ("bytes", bytes, 0),  # empty bytes are written as a call
        ]
    },
}


def _counts(values: tuple) -> bool:
    """Whether all are whole numbers from 0 on."""
    return all(type(value) is int and 0 <= value < 1 << 62 for value in values)


def _said(error: Exception) -> str:
    """The first line of an error's text; some have none."""
    return str(error).partition("\n")[0] or (
        "it ends too early" if isinstance(error, EOFError) else type(error).__name__
    )
