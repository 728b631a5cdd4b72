"""The objects that a checkpoint's pickle may build: tensors, plain containers and stubs for configuration (policy:
`unpickle`).

MAKERS maps each name that a pickle may call to a function of this module; NAMES_ONLY lists names that it may only
mention.
"""

import math
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

STORAGES = {  # torch's storage classes: dtype name, bytes per element
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
NAMES_ONLY = (  # used as a type, never called
    *STORAGES,
    "typing.Any",
    "numpy.ndarray",
    *(f"{module}.{name}" for module in ("__builtin__", "builtins") for name in ("str", "float", "bool", "tuple")),
)
KEY_PARTS = 16  # items of a tuple used as a key
AXES_LIMIT = 16  # of a tensor
HASHED = (str, bytes, int, float, bool, type(None))


class Global(NamedTuple):
    """A name that the pickle refers to; it is not resolved to an object."""

    name: str


class Stub:
    """An object that is not constructed: the name of its class, its arguments, and its state."""

    __slots__ = ("args", "kind", "state")

    def __init__(self, kind: str, args: tuple) -> None:
        self.kind = kind
        self.args = args
        self.state: Any = None

    def __repr__(self) -> str:
        return f"<{self.kind}>"


class Storage(NamedTuple):
    """A storage in the file: `numel` numbers of `dtype` under `key`."""

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


def check_keys(keys: Any) -> None:
    """Raise UnpicklingError for a key that could be slow to hash: the hash of nested tuples is not cached."""
    for key in keys:
        parts = key if type(key) is tuple and len(key) <= KEY_PARTS else (key,)
        for part in parts:
            if type(part) not in HASHED and type(part) is not Global:
                raise pickle.UnpicklingError(f"a key of type {type(part).__name__}")


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any, metadata: Any = None
) -> Strided:
    """Replaces torch._utils._rebuild_tensor_v2, without gradients and hooks."""
    if type(storage) is not Storage or type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride):
        raise TypeError("a tensor without storage or shape")
    if len(size) > AXES_LIMIT:
        raise TypeError(f"a tensor of {len(size)} axes")
    if not counts_of((offset, *size, *stride)):
        raise TypeError("a tensor whose shape is not made of integers")
    numel = math.prod(size)
    end = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) + 1 if numel else offset
    if max(end, numel) > storage.numel:
        raise ValueError(f"a tensor of shape {size} in a storage of {storage.numel} elements")
    return Strided(storage, offset, size, stride)


def _parameter(data: Any, requires_grad: Any, hooks: Any) -> Strided:
    """torch._utils._rebuild_parameter."""
    if type(data) is not Strided:
        raise TypeError("a parameter that is not a tensor")
    return data


def _encode(text: Any, encoding: Any) -> bytes:
    """Replaces _codecs.encode, with which protocol 2 writes bytes."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise TypeError("text encoded as something other than bytes")
    return text.encode("latin1")


def _defaultdict(factory: Any = None) -> dict:
    if factory is not None and type(factory) is not Global:
        raise TypeError("a defaultdict of something that is not a type")
    return {}


def _stub(kind: str) -> Callable[..., Stub]:
    return lambda *args: Stub(kind, args)


def _plain_maker(kind: type, most: int) -> Callable[..., Any]:
    """`kind` called with at most `most` arguments, which are lists, dicts, tuples or integers."""

    def make(*args: Any) -> Any:
        if len(args) > most or any(type(arg) not in (list, dict, tuple, int) for arg in args):
            raise TypeError(f"{kind.__name__} of unexpected arguments")
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


def counts_of(values: tuple) -> bool:
    """Whether all are integers of at least 0."""
    return all(type(value) is int and 0 <= value < 1 << 62 for value in values)
