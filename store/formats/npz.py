"""Arrays from an untrusted .npz file: their size in memory is checked before anything is unpacked.

numpy's own reader allocates the size in a header, and a zip of 4 MB may unpack to 4 GB. Here every member is a plain
.npy of numbers or text whose size fits its shape, and all together have at most MOST_FREE bytes, or RATIO for each byte
of the file.
"""

from __future__ import annotations

import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

MOST_FREE = 1 << 28  # bytes unpacked, for a file of any size: the largest student has 60 MB
RATIO = 4  # bytes unpacked for each byte of a file, beyond that: weights shrink by a tenth
_PART = 1 << 20  # bytes unpacked at a time
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# What `read` raises for a file that is damaged or asks for too much; RuntimeError is zipfile's for one that is encrypted.
ERRORS = (OSError, ValueError, KeyError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def read(file: str | os.PathLike[str] | IO[bytes], names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a file by name, all or those named (KeyError for one that is not there); raises what ERRORS lists."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = bounded(archive)
            wanted = list(members) if names is None else [f"{name}.npy" for name in names]
            if lacking := next((name for name in wanted if name not in members), None):
                raise KeyError(f"it holds no array {lacking.removesuffix('.npy')}")
            return {name.removesuffix(".npy"): member_array(archive, members[name]) for name in wanted}
    except (
        RecursionError,
        MemoryError,
        SyntaxError,
        OverflowError,
        tokenize.TokenError,
    ) as e:  # numpy raises these for headers that are not Python
        raise ValueError(f"an array's header cannot be read ({type(e).__name__})") from e


def bounded(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Members by name; raises ValueError if they unpack to more than allowed for a file of this size, or if a name
    occurs twice."""
    members = {info.filename: info for info in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise ValueError("it holds two members of one name")
    file: Any = archive.fp
    size = file.seek(0, os.SEEK_END)
    total = sum(info.file_size for info in members.values())
    if total > max(MOST_FREE, RATIO * size):
        raise ValueError(f"it unpacks to {total} bytes, too many for a file of {size}")
    for info in members.values():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{info.filename} is packed in a way that numpy does not pack")
    return members


def member_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """The .npy in a member, whose checksum must be right; raises what ERRORS lists."""
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        if version not in _HEADERS:
            raise ValueError(f"{info.filename} is of version {version}")
        shape, by_columns, dtype = _HEADERS[version](member)
        if dtype.kind not in "biufcUS" or dtype.itemsize == 0 or min(shape, default=0) < 0:
            raise ValueError(f"{info.filename} holds {dtype} {list(shape)}, expected numbers or text")
        count = math.prod(shape)
        if count * dtype.itemsize != info.file_size - member.tell():
            raise ValueError(f"{info.filename} says that it is {dtype} {list(shape)}, which does not fit its size")
        out = np.empty(count, dtype)
        view = out.view("u1").data if count else memoryview(bytearray())
        for at in range(0, len(view), _PART):
            part = view[at : at + _PART]
            if _fill(member, part) != len(part):
                raise EOFError(f"{info.filename} is cut short")
        if member.read(1):  # at the end the checksum is looked at
            raise ValueError(f"{info.filename} continues after its end")
    return out.reshape(shape[::-1]).T if by_columns else out.reshape(shape)


def _fill(member: IO[bytes], part: memoryview) -> int:
    """Bytes read into `part`, fewer than it has at the end alone."""
    done = 0
    while done < len(part) and (some := member.read(len(part) - done)):
        part[done : done + len(some)] = some
        done += len(some)
    return done
