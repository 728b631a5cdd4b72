"""Writes local files atomically and durably (also across a power cut); unrelated files are never removed.

This is the only implementation: a new file beside the target is written, flushed to the disk and renamed over it, and
the folder is flushed after that. The name of an unfinished file begins with MARK and ends with 12 random digits. Only such
names are ever cleaned up, and no symbolic link is followed.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

MARK = ".concord-partial-"
NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # file systems that do not sync folders answer with one of these
_OURS = re.compile(re.escape(MARK) + r"(?:.*-)?[0-9a-f]{12}", re.DOTALL)
_EARLIER = re.compile(r"\..*\.[0-9a-f]{32}\.partial", re.DOTALL)  # what earlier releases wrote in stores
_STREAM = re.compile(r"/dev/(?:(stdin|stdout|stderr)|fd/(\d+))|/proc/self/fd/(\d+)")


def unfinished(folder: Path, about: str = "") -> Path:
    """A new name in `folder` for a file or folder that is not complete yet."""
    return folder / f"{MARK}{about}{'-' if about else ''}{secrets.token_hex(6)}"


def is_unfinished(name: str) -> bool:
    """Whether the name is that of an unfinished file of this project."""
    return bool(_OURS.fullmatch(name) or _EARLIER.fullmatch(name))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A context that gives a new name beside `path`: the file that is written there becomes `path` when the context ends.

    A link, device or pipe called `path` is replaced like a file. After an error, `path` is unchanged.
    """
    partial = unfinished(path.parent)
    try:
        yield partial
        _flush(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A context that gives a binary file, whose content is `path` when the context ends without an error.

    A device or a pipe (/dev/stdout) is written to directly.
    """
    if (descriptor := stream(path)) is not None:
        # Opened by its name, a file behind it would be written from its beginning, over what it holds.
        with os.fdopen(os.dup(descriptor), "wb") as file:
            yield file
    elif path.exists() and not path.is_file() and not path.is_dir():
        with path.open("wb") as file:
            yield file
    else:
        with replacing(path) as partial, partial.open("xb") as file:
            yield file


def write(path: Path, data: bytes) -> None:
    """Write `path` completely or not at all, and wait until it is on the disk. A device or a pipe is written to
    directly.

    Raises OSError, which names `path`; an earlier file is then unchanged.
    """
    try:
        with writing(path) as file:
            file.write(data)
    except OSError as error:
        raise named(error, path) from error


def put(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk; OSError if the name exists, even as a link.

    For files within an `unfinished` folder, which gets its own name later.
    """
    with path.open("xb") as file:  # x: never through a link
        file.write(data)
    _flush(path)


def make_folder(folder: Path) -> None:
    """Make a folder and its parents durably; an existing one is fine."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def _flush(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync(folder: Path) -> None:
    """Make the names in a folder durable, if its file system supports it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def remove(folder: Path) -> None:
    """Remove a folder of this project. It is renamed first, so that a partly removed folder is never used."""
    gone = unfinished(folder.parent)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove unfinished files of earlier runs in `folder`: only names that `unfinished` gives, no symbolic links."""
    for path in folder.iterdir():
        if not _OURS.fullmatch(path.name) or path.is_symlink():
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file():
            with suppress(OSError):
                path.unlink()


def named(error: OSError, path: Path) -> OSError:
    """The same error, `errno` too, as one line that names the file as the user knows it."""
    found = OSError(f"{path} cannot be written: {error.strerror or error}")
    found.errno = error.errno
    return found


def is_plain(path: Path) -> bool:
    """Whether it is a regular file, not a link, folder, device or pipe."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def stream(path: str | os.PathLike[str]) -> int | None:
    """The descriptor that a path such as /dev/stdout stands for; None for every other path."""
    found = _STREAM.fullmatch(os.path.normpath(path))
    if not found:
        return None
    name, *numbers = found.groups()
    return ("stdin", "stdout", "stderr").index(name) if name else int(next(n for n in numbers if n))
