"""Local copies of media in buckets, while they are decoded.

A clip is downloaded once, into a folder of the temporary directory, and removed after use. A killed worker leaves its
file behind. Files are locked while their owner lives, so the next download on that machine recognises abandoned files
and removes them. Anyone may write to a temporary directory, so the folder must be a real one that only this user can
write to, and only plain files of this user with MARK in their name are ever removed from it.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.media.files import Media, MediaError, check_size, reached
from store.place import is_url, place

PIECE = 8 << 20  # bytes per request
MARK = "concord-av-"  # prefix of the names of copies
SUFFIX = r"\.[A-Za-z0-9]{1,8}"


class Copy(os.PathLike[str]):
    """A local copy of the file at `url`; messages name the URL."""

    def __init__(self, file: str, url: str) -> None:
        self.file, self.url = file, url

    def __fspath__(self) -> str:
        return self.file


@contextmanager
def local_copy(path: Media) -> Iterator[Media]:
    """The path itself if it is local, else a copy that is removed at the end.

    Raises MediaError: unreadable (no such object), limit (size), io (the bucket cannot be reached).
    """
    if not is_url(path):
        yield path
        return
    with reached(path):
        where = place(path)
        opened = where.open()
    check_size(where, opened.size)
    folder = _folder()
    try:
        _sweep(folder)
        suffix = Path(where.name).suffix  # a hint for ffmpeg
        name, file = _create(folder, suffix if re.fullmatch(SUFFIX, suffix) else "")
        with os.fdopen(file, "wb") as out:
            try:
                with reached(where):
                    for at in range(0, opened.size, PIECE):
                        out.write(opened.read(at, PIECE))
                out.flush()
                yield Copy(str(_path() / name), str(where))
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
    finally:
        os.close(folder)


def _path() -> Path:
    return Path(tempfile.gettempdir()) / f"concord-av-media-{os.getuid()}"


def _folder() -> int:
    """The folder of copies, opened. Raises MediaError (io) if it is a link, another user's, or open to others."""
    path = _path()
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise _unsafe(path, "is a link, or not a folder") from error
    status = os.fstat(folder)
    if (
        status.st_uid != os.getuid() or status.st_mode & 0o022
    ):  # someone else could have made it, to read or replace files
        os.close(folder)
        raise _unsafe(path, "belongs to another user" if status.st_uid != os.getuid() else "can be written by others")
    return folder


def _unsafe(path: Path, why: str) -> MediaError:
    return MediaError("io", f"{path}, where copies of clips would be kept, {why}; set TMPDIR to a folder of your own")


def _create(folder: int, suffix: str) -> tuple[str, int]:
    """A new, locked file: its name and its descriptor."""
    while True:
        name = f"{MARK}{uuid.uuid4().hex}{suffix}"
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink:
            return name, file
        os.close(file)  # another process removed it before it was locked


def _sweep(folder: int) -> None:
    """Remove the files of dead workers."""
    for name in os.listdir(folder):
        if not re.fullmatch(f"{re.escape(MARK)}[0-9a-f]{{32}}({SUFFIX})?", name):
            continue
        with suppress(OSError):  # removed meanwhile, a link, or locked by its owner
            # Non-blocking, because opening a pipe of that name would block.
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            try:
                status = os.fstat(file)
                if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid():
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(name, dir_fd=folder)
            finally:
                os.close(file)
