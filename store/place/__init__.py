"""Where bytes lie: a local folder or file, or a prefix of a bucket (s3://, gs://), behind the same few operations.

`place(x)` takes a path, a file:// URL or a bucket's URL; "/" joins. What is written is there whole or not at all: locally a
temporary file that is flushed and renamed, in a bucket one request (`store.place.bucket`). What is not there is
FileNotFoundError on both; a network that stays away is a StoreError.

A place that is `confined`, as stores are, is kept to: below its folder no symbolic link is followed, neither to read nor to
write, and only regular files are opened. The folder itself may be a link.

Credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS ...), from the
machine's role, or from `options`, which no message and no `repr` shows (`store.place.secrets`). They travel where a place is
pickled to, nowhere else.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote

from store.layout import StoreError
from store.place import secrets

A = TypeVar("A")
B = TypeVar("B")
KINDS = {"s3": "aws_", "gs": "google_"}  # URL scheme: how options for it alone begin
PARTIAL = ".partial"  # how the names of files that are being written end, after 32 hexadecimal digits of their own
_LEFT = re.compile(r".*\.[0-9a-f]{32}\.partial")  # such a name: nobody else gives it
_STREAM = re.compile(r"/dev/(?:(stdin|stdout|stderr)|fd/(\d+))|/proc/self/fd/(\d+)")
_NAMED = 50  # letters of a file's name in that of what is written for it, which must not become too long
READ_MOST = 1 << 28  # bytes of a store's file that is read whole: none of ours comes near, a sparse one may have any
READ_AHEAD = 1 << 20  # bytes read at a time through a file object


class Changed(StoreError):
    """An object was replaced since it was opened."""


class Outside(StoreError):
    """A part of a store that leads, or may lead, out of it: by a symbolic link or by dots."""


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
    from store.place.bucket import Bucket  # inside, because it needs this module, and obstore

    return Bucket("/".join([f"{scheme}://{bucket}", *(part for part in key.split("/") if part)]), options)


def is_leftover(name: str) -> bool:
    """Whether a file of that name is one that a writer of ours was writing when it was killed."""
    return bool(_LEFT.fullmatch(name))


def stream(location: str) -> int | None:
    """The open file that a path such as /dev/stdout stands for; None for every other path."""
    found = _STREAM.fullmatch(os.path.normpath(location))
    if not found:
        return None
    name, *numbers = found.groups()
    return ("stdin", "stdout", "stderr").index(name) if name else int(next(n for n in numbers if n))


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
        """Remove a file or object, if there is one; a folder is never removed."""

    def write_tree(self, files: Mapping[str, bytes], last: str) -> None:
        """Write many files below; `last` of them appears last, so that it tells of all."""
        self.map(lambda key: (self / key).write(files[key]), [key for key in files if key != last])
        (self / last).write(files[last])

    @abstractmethod
    def zarr(self) -> Any:
        """What zarr and xarray open."""

    def confined(self) -> Place:
        """The same place, whose "/" leads to nothing that a symbolic link names; buckets have none."""
        return self

    def prune(self) -> None:  # noqa: B027
        """Remove the folders here and below that are empty; buckets have none."""

    def tidy(self) -> None:  # noqa: B027
        """Remove the temporary files that writers of ours left below when they were killed, told by their names."""

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

    def __init__(self, location: str, options: Mapping[str, str] | None = None, root: str = ""):
        """`root`: the folder below which no link is followed, empty where this place is not confined."""
        super().__init__(location, options)
        self.root = root

    def __truediv__(self, key: str) -> Folder:
        return Folder(os.path.join(self.location, key), self.options, self.root)

    def __reduce__(self) -> tuple[Any, ...]:
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
        if not self.root and (descriptor := stream(self.location)) is not None:
            # Opened by its name it would begin anew where it leads to a file, and lose what stands there.
            with os.fdopen(os.dup(descriptor), "wb") as file:
                yield file
            return
        if path.exists() and not path.is_file() and not path.is_dir() and not self.root:
            with path.open("wb") as file:  # /dev/stdout, /dev/null, a pipe: nothing to replace
                yield file
            return
        _make_folder(path.parent)
        partial = path.with_name(f".{path.name[:_NAMED]}.{uuid.uuid4().hex}{PARTIAL}")
        try:
            with partial.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)

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

    def zarr(self) -> Any:
        return Path(self._checked())

    def tidy(self) -> None:
        for folder, _, names in os.walk(self._checked()):
            for name in names:
                file = os.path.join(folder, name)
                if is_leftover(name) and not os.path.islink(file):
                    with suppress(FileNotFoundError):
                        os.unlink(file)


def _plain_file(path: str) -> int:
    """A descriptor for reading; raises OSError for a folder, and for a pipe or a device, at which reading would wait."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", path)
    raise OSError(errno.EINVAL, "it is no plain file", path)


class _File(Opened):
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


def _make_folder(folder: Path) -> None:
    """Have a folder and those above it; what is made outlasts a power cut."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Make renames within a folder outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
