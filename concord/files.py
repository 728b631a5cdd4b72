"""Files of ours: written whole or not at all, so that they outlast a power cut; nothing of another's is replaced or removed.

Whatever is not finished bears a name that begins with MARK and a random end. Nothing else is ever swept away, and no symbolic
link is followed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import Any

MARK = ".concord-partial-"
NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # file systems that do not sync folders say one of these


def unfinished(folder: Path, about: str = "") -> Path:
    """A new name in `folder` for what is not whole yet."""
    return folder / f"{MARK}{about}{'-' if about else ''}{secrets.token_hex(6)}"


def write(path: Path, data: bytes) -> None:
    """Write `path` whole or not at all, and wait until the disk has it. A device or a pipe is written to as it is.

    Raises OSError naming `path`; what was there before is then as it was.
    """
    try:
        if path.exists() and not path.is_file():  # /dev/stdout, say, must not become a file
            path.write_bytes(data)
            return
        partial = unfinished(path.parent)
        try:
            put(partial, data)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        sync(path.parent)
    except OSError as error:
        raise named(error, path) from error


def put(path: Path, data: bytes) -> None:
    """Write a new file of that name and wait until the disk has it; OSError where there is one, or a link."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(folder: Path) -> None:
    """Make names within a folder outlast a power cut, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def remove(folder: Path) -> None:
    """Remove a folder of ours: it loses its name first, so that no part of it is ever taken for the whole."""
    gone = unfinished(folder.parent)
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what earlier runs left unfinished in `folder`: names with our mark alone, no symbolic link."""
    for path in folder.iterdir():
        if not path.name.startswith(MARK) or path.is_symlink():
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file():
            with contextlib.suppress(OSError):
                path.unlink()


def named(error: OSError, path: Path) -> OSError:
    """The same error as one line about the file that the user knows."""
    return OSError(f"{path} cannot be written: {error.strerror or error}")


def is_plain(path: Path) -> bool:
    """Whether it is a file itself, not a link to one, nor a folder, device or pipe."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def parse_json(text: str | bytes) -> Any:
    """What JSON text holds. Raises ValueError, and nothing else, for any text that is none or cannot be used as it is: nested
    too deep, half a character (a lone surrogate), numbers of thousands of digits."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape")  # as file names may have them
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return value
