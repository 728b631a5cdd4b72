"""A folder of this machine, or of a disk that is mounted here, as a place for a store."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from concord import files
from store.place.base import Opened, Outside, Place

READ_MOST = 1 << 28  # bytes of a store's file that is read whole: none of ours comes near, a sparse one may have any


class Folder(Place):
    """On this machine, or on a disk that is mounted here."""

    def __init__(self, location: str, options: Mapping[str, str] | None = None, root: str = ""):
        """`root`: the folder below which no link is followed, empty where this place is not confined."""
        super().__init__(location, options)
        self.root = root

    def __truediv__(self, key: str) -> Folder:
        return Folder(os.path.join(self.location, key), self.options, self.root)

    def __reduce__(self) -> tuple[object, ...]:
        return Folder, (self.location, self.options, self.root)

    def __fspath__(self) -> str:
        return self.location

    @property
    def path(self) -> Path:
        return Path(self.location)

    def confined(self) -> Folder:
        return self if self.root else Folder(self.location, self.options, self.location)

    def _checked(self) -> str:
        """The location; raises Outside where it is confined and there is a link on the way."""
        if self.root:
            at = self.root
            for part in os.path.relpath(self.location, at).split(os.sep):
                if part == "..":
                    raise Outside(f"{self.location} lies outside {self.root}")
                at = os.path.join(at, part)
                try:
                    is_link = part != "." and stat.S_ISLNK(os.lstat(at).st_mode)
                except (FileNotFoundError, NotADirectoryError):
                    break
                if is_link:
                    raise Outside(
                        f"{at} is a symbolic link, and stores follow none: put the file or folder itself there"
                    )
        return self.location

    def exists(self) -> bool:
        return os.path.isfile(self._checked())

    def read(self) -> bytes:
        if not self.root:
            return self.path.read_bytes()
        with os.fdopen(_plain_file(self._checked()), "rb") as file:
            if (size := os.fstat(file.fileno()).st_size) > READ_MOST:
                raise OSError(errno.EFBIG, f"it has {size} bytes, at most {READ_MOST} are read at once", self.location)
            return file.read()

    def open(self, tail: int = 0) -> Opened:
        return _File(self._checked(), tail, regular=bool(self.root))

    @contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        path = Path(self._checked())
        files.make_folder(path.parent)
        if not self.root:
            with files.writing(path) as file:
                yield file
        else:  # a store has no devices and pipes: whatever bears the name is replaced
            with files.replacing(path) as partial, partial.open("xb") as file:
                yield file

    def walk(self) -> Iterator[tuple[str, int]]:
        for folder, _, names in os.walk(self._checked()):
            for name in names:
                file = os.path.join(folder, name)
                if os.path.isfile(file) and not (self.root and os.path.islink(file)):
                    yield os.path.relpath(file, self.location), os.path.getsize(file)

    def names(self) -> list[str]:
        try:
            return sorted(os.listdir(self._checked()))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def delete(self) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(self._checked())

    def prune(self) -> None:
        for folder, _, _ in os.walk(self._checked(), topdown=False):
            with suppress(OSError):  # it holds something, or is somebody's mount
                os.rmdir(folder)

    def zarr(self) -> Path:
        return Path(self._checked())

    def tidy(self) -> None:
        for folder, _, names in os.walk(self._checked()):
            for name in names:
                file = os.path.join(folder, name)
                if files.is_unfinished(name) and not os.path.islink(file):
                    with suppress(FileNotFoundError):
                        os.unlink(file)


class _File(Opened):
    gap = -1

    def __init__(self, path: str, tail: int, regular: bool = False):
        self._descriptor = -1
        self._descriptor = _plain_file(path) if regular else os.open(path, os.O_RDONLY)
        self.name, self.size = os.path.basename(path), os.fstat(self._descriptor).st_size
        self.tail = self.read(max(0, self.size - tail), tail) if tail else b""

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._descriptor, length, offset)
        while 0 < len(data) < length:  # a signal or a network disk may give less than asked for
            more = os.pread(self._descriptor, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _plain_file(path: str) -> int:
    """A descriptor for reading; raises OSError for a folder, and for a pipe or a device, where reading would wait."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", path)
    raise OSError(errno.EINVAL, "it is not a regular file", path)
