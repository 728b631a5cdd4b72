"""Arrays of long clips, which lie in temporary files instead of memory: the system may drop their pages, and another process
gets the file instead of a copy.

A file has no name from the beginning, so nothing is left behind, however its process ends. Its space is reserved when it is
made, because writing to a mapped page that a full disk cannot hold would end the process. Where there is no space, or no
temporary folder that can hold such a file, the array is in memory. On a temporary folder that is memory (tmpfs) nothing is
gained; TMPDIR can name another.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

LARGE = 64 << 20  # bytes from which an array is in a file: mouth crops of five minutes
_files: dict[int, tuple[int, int]] = {}  # descriptor and size of the files that are mapped here, by address


def zeros(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array of zeros as numpy's, in a file if it is LARGE."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < LARGE:
        return np.zeros(shape, dtype)
    try:
        found: np.ndarray = _array(_file(size), size, mmap.ACCESS_WRITE).view(dtype).reshape(shape)
    except OSError as error:
        log.debug("%d bytes are kept in memory: no temporary file can hold them (%s)", size, error)
        return np.zeros(shape, dtype)
    return found


def descriptor(buffer: memoryview) -> int | None:
    """The descriptor of the file that holds exactly these bytes; None if they are elsewhere."""
    if buffer.nbytes < LARGE:
        return None
    address = np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]
    found, size = _files.get(address, (None, 0))
    return found if size == buffer.nbytes else None


def received(descriptor: int) -> np.ndarray:
    """The bytes u1 [size], read-only, of a file that another process holds; takes the descriptor over."""
    return _array(descriptor, os.fstat(descriptor).st_size, mmap.ACCESS_READ)


class Shelf:
    """Arrays that wait in one temporary file, so that they take no memory meanwhile; in memory where it has no space."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._end = 0

    def put(self, found: np.ndarray) -> Callable[[], np.ndarray]:
        """Lay an array there; what is returned gives it back."""
        values = np.ascontiguousarray(found)
        start, data = self._end, values.tobytes()
        try:
            if self._file is None:
                self._file = _file(0)
                weakref.finalize(self, os.close, self._file)
            written = 0
            while written < len(data):
                written += os.pwrite(self._file, data[written:], start + written)
        except OSError as error:
            log.debug("%d bytes are kept in memory: no temporary file can hold them (%s)", len(data), error)
            return lambda: values
        self._end += len(data)
        size, dtype, shape = len(data), values.dtype, values.shape
        return lambda: np.frombuffer(self._read(start, size), dtype).reshape(shape)

    def _read(self, start: int, size: int) -> bytes:
        assert self._file is not None
        found = b""
        while len(found) < size:
            found += (more := os.pread(self._file, size - len(found), start + len(found)))
            if not more:
                raise OSError(f"a temporary file has lost {size - len(found)} bytes")
        return found


def _file(size: int) -> int:
    """The descriptor of a new file without a name, of that many bytes. Raises OSError."""
    with tempfile.TemporaryFile(prefix="concord-av-") as file:
        if size:
            os.posix_fallocate(file.fileno(), 0, size)
        return os.dup(file.fileno())


def _array(descriptor: int, size: int, access: int) -> np.ndarray:
    """The file as u1 [size]; it is closed with the last array that shows a part of it."""
    try:
        mapped = mmap.mmap(descriptor, size, access=access)
    except BaseException:
        os.close(descriptor)
        raise
    array = np.frombuffer(mapped, np.uint8)
    address = array.__array_interface__["data"][0]
    _files[address] = descriptor, size
    weakref.finalize(mapped, _forget, address)
    return array


def _forget(address: int) -> None:
    os.close(_files.pop(address)[0])
