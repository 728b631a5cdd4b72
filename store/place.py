"""Where bytes lie: a local folder or file, or a prefix of a bucket (s3://, gs://), behind the same few operations.

`place(x)` takes a path, a file:// URL or a bucket's URL; "/" joins. What is written is there whole or not at all: locally a
temporary file that is flushed and renamed, in a bucket one request (`store.bucket`). What is not there is FileNotFoundError on
both; a network that stays away is a StoreError.

Credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS ...), from the
machine's role, or from `options`, which no message and no `repr` shows (`store.secrets`). They travel where a place is pickled
to, nowhere else.
"""

from __future__ import annotations

import io
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote

from store import secrets
from store.layout import StoreError

A = TypeVar("A")
B = TypeVar("B")
KINDS = {"s3": "aws_", "gs": "google_"}  # URL scheme: how options for it alone begin
PARTIAL = ".partial"  # how the names of files that are being written end
READ_AHEAD = 1 << 20  # bytes read at a time through a file object


class Changed(StoreError):
    """An object was replaced since it was opened."""


def place(location: str | os.PathLike[str] | Place, options: Mapping[str, str] | None = None) -> Place:
    """The place that a path or URL names; one that is a place already is given back. Raises StoreError for other URLs.

    A folder keeps `options` too, for those who then ask for what lies elsewhere.
    """
    if isinstance(location, Place):
        return location
    text = os.fspath(location)
    scheme, separator, rest = text.partition("://")
    if not separator or os.sep in scheme:
        return Folder(text, options)
    if scheme == "file":
        return Folder(unquote(rest, errors="surrogateescape"), options)
    if scheme not in KINDS:
        raise StoreError(
            f"{secrets.redact(text)}: {scheme}:// is not known; use a path, {', '.join(f'{k}://' for k in KINDS)} or file://"
        )
    bucket, _, key = rest.partition("/")
    signed = "?" in key and secrets.redact(text) != text
    if not bucket or signed or set("@?#") & set(bucket) or any(part in (".", "..") for part in key.split("/")):
        raise StoreError(
            f"{scheme}:// takes BUCKET/PREFIX, without credentials, queries or dots: {scheme}://bucket/store.zarr"
        )
    from store.bucket import Bucket  # inside, because it needs this module, and obstore

    return Bucket("/".join([f"{scheme}://{bucket}", *(part for part in key.split("/") if part)]), options)


def is_url(location: str | os.PathLike[str] | Place) -> bool:
    """Whether this names something that is not on this machine's file system."""
    if isinstance(location, Place):
        return not isinstance(location, Folder)
    scheme, separator, _ = os.fspath(location).partition("://")
    return bool(separator) and os.sep not in scheme and scheme != "file"


class Place(ABC):
    """A file or folder, or an object or prefix, whichever an operation takes it for; nothing is asked of it when made."""

    def __init__(self, location: str, options: Mapping[str, str] | None = None):
        self.location, self.options = location, secrets.Options(options or {})
        secrets.know(self.options)

    def __truediv__(self, key: str) -> Place:
        return type(self)(os.path.join(self.location, key), self.options)

    def __str__(self) -> str:
        return self.location

    def __repr__(self) -> str:
        return f"place({self.location!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self.location == other.location

    def __hash__(self) -> int:
        return hash(self.location)

    def __reduce__(self) -> tuple[Any, ...]:
        return place, (self.location, self.options)

    @property
    def name(self) -> str:
        """Last part of the location."""
        return self.location.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> Place:
        """The location without its last part."""
        return type(self)(os.path.dirname(self.location.rstrip("/")), self.options)

    def write(self, data: bytes) -> None:
        """Have these bytes here, whole, instead of what was here."""
        with self.writing() as file:
            file.write(data)

    def files(self) -> dict[str, int]:
        """{key: bytes} of all files or objects below, at any depth, in the order of the parts of their keys."""
        return dict(sorted(self.walk(), key=lambda item: item[0].split("/")))

    @property
    @abstractmethod
    def path(self) -> Path | str:
        """A Path where this is local, else the URL."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is a file or an object here (not: a folder or prefix)."""

    @abstractmethod
    def read(self) -> bytes:
        """All bytes of a file or an object."""

    @abstractmethod
    def open(self, tail: int = 0) -> Opened:
        """Open for reading parts, as it is now; its last `tail` bytes come along."""

    @abstractmethod
    def writing(self) -> Any:
        """A context that gives a binary file; what was written to it is here once the context ends without an error."""

    @abstractmethod
    def walk(self) -> Iterator[tuple[str, int]]:
        """(key, bytes) of all files or objects below, in any order; nothing where there is no such folder."""

    @abstractmethod
    def names(self) -> list[str]:
        """Names of what lies directly below, files and folders, sorted."""

    @abstractmethod
    def delete(self) -> None:
        """Remove a file or object, if there is one."""

    @abstractmethod
    def delete_tree(self) -> None:
        """Remove everything below."""

    @abstractmethod
    def write_tree(self, files: Mapping[str, bytes], last: str) -> None:
        """Write many files below, where there must be none; `last` of them appears last, so that it tells of all."""

    @abstractmethod
    def zarr(self) -> Any:
        """What zarr and xarray open."""

    def sync(self) -> None:  # noqa: B027
        """Make a file that others wrote here, and its name, outlast a power cut."""

    def tidy(self) -> None:  # noqa: B027
        """Remove what writers that were killed left below."""

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> list[B]:
        """Answers of `function` for each item; where every answer takes a network's round trip, many at the same time."""
        return [function(item) for item in items]


class Opened(ABC):
    """A file or object opened for reading: its name, its size and, where asked for, its last bytes."""

    name: str
    size: int
    tail: bytes

    @abstractmethod
    def read(self, offset: int, length: int) -> bytes:
        """Bytes offset to offset + length, fewer where the file ends; safe for threads."""

    def file(self, ahead: int = READ_AHEAD) -> BinaryIO:
        """The same as a file object, for libraries that want one; it reads `ahead` bytes at a time."""
        return io.BufferedReader(_Raw(self), ahead)


class Folder(Place):
    """On this machine, or on a disk that is mounted here."""

    @property
    def path(self) -> Path:
        return Path(self.location)

    def __fspath__(self) -> str:
        return self.location

    def exists(self) -> bool:
        return os.path.isfile(self.location)

    def read(self) -> bytes:
        return self.path.read_bytes()

    def open(self, tail: int = 0) -> Opened:
        return _File(self.location, tail)

    @contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        path = self.path
        if (
            path.exists() and not path.is_file() and not path.is_dir()
        ):  # /dev/stdout, /dev/null, a pipe: nothing to replace
            with path.open("wb") as file:
                yield file
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)

    def walk(self) -> Iterator[tuple[str, int]]:
        for folder, _, names in os.walk(self.location):
            for name in names:
                file = os.path.join(folder, name)
                if os.path.isfile(file):
                    yield os.path.relpath(file, self.location), os.path.getsize(file)

    def names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.location))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)

    def delete_tree(self) -> None:
        shutil.rmtree(self.location, ignore_errors=True)

    def write_tree(self, files: Mapping[str, bytes], last: str) -> None:
        path = self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        building = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
        try:
            for key, data in files.items():
                (building / key).parent.mkdir(parents=True, exist_ok=True)
                (building / key).write_bytes(data)
            os.rename(building, path)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        _sync_folder(path.parent)

    def zarr(self) -> Any:
        return self.path

    def sync(self) -> None:
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        _sync_folder(self.path.parent)

    def tidy(self) -> None:
        for leftover in self.path.rglob(f"*{PARTIAL}"):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)


class _File(Opened):
    def __init__(self, path: str, tail: int):
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY)
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


class _Raw(io.RawIOBase):
    """A position over what is opened."""

    def __init__(self, opened: Opened):
        self._opened, self._at, self.name = opened, 0, opened.name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._opened.size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._opened.read(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _sync_folder(folder: Path) -> None:
    """Make renames within a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
