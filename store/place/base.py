"""The operations of a place for a store's files, whether it is a folder or a prefix of a bucket."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from concord import secrets
from store.layout import StoreError

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

A = TypeVar("A")
B = TypeVar("B")
KINDS = {"s3": "aws_", "gs": "google_"}  # URL scheme: how options for it alone begin
READ_AHEAD = 1 << 20  # bytes read at a time through a file object


class Changed(StoreError):
    """An object was replaced since it was opened."""


class Outside(StoreError):
    """A part of a store that leads, or may lead, out of it: by a symbolic link or by dots."""


class Place(ABC):
    """A file or folder, or an object or prefix, depending on the operation; making a place does no input or output."""

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

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.location, self.options)

    @property
    def name(self) -> str:
        """Last part of the location."""
        return self.location.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> Place:
        """The location without its last part."""
        return type(self)(os.path.dirname(self.location.rstrip("/")), self.options)

    def write(self, data: bytes) -> None:
        """Replace what is here by these bytes, whole."""
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
    def writing(self) -> AbstractContextManager[BinaryIO]:
        """A context that gives a binary file; what was written to it is here once the context ends without an error."""

    @abstractmethod
    def walk(self) -> Iterator[tuple[str, int]]:
        """(key, bytes) of all files or objects below, in any order; nothing where there is no such folder."""

    @abstractmethod
    def names(self) -> list[str]:
        """Names of what lies directly below, files and folders, sorted."""

    @abstractmethod
    def delete(self) -> None:
        """Remove a file or object, if there is one; a folder is never removed."""

    def write_tree(self, files: Mapping[str, bytes], last: str) -> None:
        """Write many files below; `last` of them appears last, so that its presence means that all are there."""
        self.map(lambda key: (self / key).write(files[key]), [key for key in files if key != last])
        (self / last).write(files[last])

    @abstractmethod
    def zarr(self) -> Path | ZarrStore:
        """What zarr and xarray open."""

    def confined(self) -> Place:
        """The same place, whose "/" leads to nothing that a symbolic link names; buckets have none."""
        return self

    def prune(self) -> None:  # noqa: B027
        """Remove the folders here and below that are empty; buckets have none."""

    def tidy(self) -> None:  # noqa: B027
        """Remove the temporary files that our writers left below when they were killed, recognised by their names."""

    def map(self, function: Callable[[A], B], items: Iterable[A]) -> list[B]:
        """Answers of `function` for each item; where every answer takes a network's round trip, many at the same time."""
        return [function(item) for item in items]


class Opened(ABC):
    """A file or object opened for reading: its name, its size and, where asked for, its last bytes.

    `gap`: parts with no more than so many bytes between them are better read together, since a read is a request; negative
    where reads cost little.
    """

    name: str
    size: int
    tail: bytes
    gap = 1 << 16

    @abstractmethod
    def read(self, offset: int, length: int) -> bytes:
        """Bytes offset to offset + length, fewer where the file ends; safe for threads."""

    def file(self, ahead: int = READ_AHEAD) -> BinaryIO:
        """The same as a file object, for libraries that want one; it reads `ahead` bytes at a time."""
        return io.BufferedReader(_Raw(self), ahead)


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

    def readinto(self, buffer: Any) -> int:  # any writable buffer
        data = self._opened.read(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
