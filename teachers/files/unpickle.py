"""The only way in which pickles from others are read: an unpickler that calls only functions of this project.

A pickle is a program that may call whatever it names. Here a name becomes an inert `Global`, and calling it runs this
project's function from the table MAKERS. Nothing on the stack is callable, has attributes that matter or is known to
the rest of Python. A name outside the tables stops the reading before anything else happens. `checkpoint` interprets
the objects.

A short pickle can also demand excessive work: keys of nested tuples, whose hash takes twice as long with each level;
endless copies of a list or a text; lengths beyond the file. So opcodes are counted, keys must be plain, and calls copy
at most as much as the pickle holds.

Every checkpoint is read this way, the teachers' and those that a student starts from (`student.models.weights`).
Neither torch.load nor pickle.load reads a file from others. torch.load(weights_only=True) is not used because its list
of allowed names is global to the process, it hands out live classes and functions, and a small file can keep it busy
for hours.
"""

import io
import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from teachers.base import TeacherError
from teachers.files.makers import MAKERS, NAMES_ONLY, STORAGES, STUBS, Global, Storage, Stub, check_keys, counts_of

OPCODES = [
    getattr(pickle, name)[0]
    for name in (
        "PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT "
        "BINUNICODE SHORT_BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 "
        "TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS EMPTY_SET ADDITEMS FROZENSET BINGET "
        "LONG_BINGET BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL BINPERSID"
    ).split()
]


OPCODES_LIMIT = 600_000  # a tensor takes about 30; the largest object that one opcode makes is a set, 216 bytes
PICKLE_LIMIT = 1 << 25  # bytes of a pickle; real ones have a few hundred kB at most
LINE_LIMIT = 1 << 12  # bytes of a name


class Unpickler(pickle._Unpickler):
    """Python's own unpickler (its pure Python version) with fewer opcodes, none of which calls a function that the
    pickle names."""

    stack: list[Any]  # the base class sets both
    append: Callable[[Any], None]

    def __init__(self, path: Path, file: BinaryIO) -> None:
        """`file` is positioned at the start of the pickle and may continue after its end."""
        super().__init__(_Bounded(file))
        self.path = path
        self._copies = PICKLE_LIMIT  # items and characters that calls may still copy; `load` sets it
        self._length = 0
        start = file.tell()
        self._length = min(file.seek(0, io.SEEK_END) - start, PICKLE_LIMIT)
        file.seek(start)

    def load(self) -> Any:
        """The pickle's value. Raises UnpicklingError, or one of Python's errors, if the pickle is damaged or demands
        too much."""
        self.dispatch = _Counted(type(self).dispatch)  # type: ignore[misc]
        self._copies = self._length + 1024
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
            raise pickle.UnpicklingError("a reference that is not a storage")
        _, kind, key, _, numel = pid[:5]
        if type(kind) is not Global or kind.name not in STORAGES or type(key) is not str or not counts_of((numel,)):
            raise pickle.UnpicklingError("a storage of unknown kind")
        dtype, itemsize = STORAGES[kind.name]
        return Storage(key, dtype, numel * itemsize, numel)

    def load_call(self) -> None:
        """REDUCE and NEWOBJ, which are handled alike."""
        args = self.stack.pop()
        called = self.stack.pop()
        if type(called) is not Global or called.name not in MAKERS or type(args) is not tuple:
            raise pickle.UnpicklingError("a call of something that cannot be called")
        if called.name not in STUBS:  # stubs copy nothing
            self._copies -= sum(len(arg) for arg in args if isinstance(arg, _COPIED))
            if self._copies < 0:
                raise pickle.UnpicklingError("its calls copy more than the pickle holds")
        for arg in args if called.name in _KEYED else ():
            pairs = arg if type(arg) in (list, tuple) and called.name in _MAPPINGS else ()
            check_keys([pair[0] for pair in pairs if type(pair) in (list, tuple) and pair] if pairs else arg)
        self.append(MAKERS[called.name](*args))

    def load_build(self) -> None:
        """BUILD: a stub keeps its state; attributes of a dict (torch's format version) are dropped."""
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is Stub and target.state is None:
            target.state = state
        elif type(target) is not dict:
            raise pickle.UnpicklingError(f"a state for a {type(target).__name__}")

    def load_setitem(self) -> None:
        """SETITEM, with a key that is plain."""
        check_keys(self.stack[-2:-1])
        pickle._Unpickler.load_setitem(self)  # type: ignore[attr-defined]

    def load_setitems(self) -> None:
        """SETITEMS, with keys that are plain."""
        check_keys(self.stack[::2])
        pickle._Unpickler.load_setitems(self)  # type: ignore[attr-defined]

    def load_additems(self) -> None:
        """ADDITEMS, of plain items."""
        check_keys(self.stack)
        pickle._Unpickler.load_additems(self)  # type: ignore[attr-defined]

    def load_frozenset(self) -> None:
        """FROZENSET, of plain items."""
        check_keys(self.stack)
        pickle._Unpickler.load_frozenset(self)  # type: ignore[attr-defined]

    # Opcodes that are not listed fail as unknown.
    dispatch: ClassVar[dict[int, Any]] = {
        **{code: pickle._Unpickler.dispatch[code] for code in OPCODES},
        pickle.REDUCE[0]: load_call,
        pickle.NEWOBJ[0]: load_call,
        pickle.BUILD[0]: load_build,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
    }


class _Bounded:
    """A file that refuses to read past its end; otherwise Python would first allocate the requested size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        here = file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(here)

    def readline(self) -> bytes:
        return self._file.readline(LINE_LIMIT)

    def read(self, size: int) -> bytes:
        if size > 1 and size > min(self._end - self._file.tell(), PICKLE_LIMIT):
            raise EOFError("it ends too early")
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)  # type: ignore[attr-defined]


class _Counted(dict):
    """The table of opcodes, which allows OPCODES_LIMIT look-ups."""

    left = OPCODES_LIMIT

    def __getitem__(self, code: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError(f"it has more than {OPCODES_LIMIT} opcodes")
        return super().__getitem__(code)


_COPIED = (str, bytes, list, tuple, dict, set, frozenset)  # arguments that a call copies
_MAPPINGS = ("collections.OrderedDict", "__builtin__.dict", "builtins.dict")
_KEYED = (*_MAPPINGS, *(f"{module}.{name}" for module in ("__builtin__", "builtins") for name in ("set", "frozenset")))
