"""Media that lie in a bucket, as a local file while they are decoded.

A clip is downloaded once, into a folder of the temporary directory, and removed after use. A worker that is killed leaves its
file: it is locked while its owner lives, so the next download on that machine can tell, and removes it.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipelines.probe import Media, check_size, reached
from store.place import is_url, place

PIECE = 8 << 20  # bytes a request


class Copy(os.PathLike[str]):
    """A local copy of what lies at `url`, which messages name."""

    def __init__(self, file: str, url: str) -> None:
        self.file, self.url = file, url

    def __fspath__(self) -> str:
        return self.file


@contextmanager
def local_copy(path: Media) -> Iterator[Media]:
    """The path itself where it is local, else a copy that is removed at the end.

    Raises MediaError: unreadable (nothing there), limit (size), io (the bucket cannot be reached).
    """
    if not is_url(path):
        yield path
        return
    with reached(path):
        where = place(path)
        opened = where.open()
    check_size(where, opened.size)
    folder = Path(tempfile.gettempdir()) / f"concord-av-media-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():  # anybody could have made it, to read along
        raise PermissionError(f"{folder} belongs to another user; set TMPDIR to a folder of your own")
    _sweep(folder)
    file = folder / f"{uuid.uuid4().hex}{Path(where.name).suffix}"  # ffmpeg takes hints from suffixes
    # Hidden until it is locked: hidden files are not swept.
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as out:
        try:
            fcntl.flock(out, fcntl.LOCK_EX)
            os.rename(out.name, file)
            with reached(where):
                for at in range(0, opened.size, PIECE):
                    out.write(opened.read(at, PIECE))
            out.flush()
            yield Copy(str(file), str(where))
        finally:
            file.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove the files of workers that are dead."""
    for file in folder.glob("[!.]*"):
        with suppress(OSError), file.open("rb") as f:  # gone meanwhile, or locked by its owner
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.unlink()
