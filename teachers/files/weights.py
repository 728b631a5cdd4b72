"""Where a model's weights come from, and whether they are the right ones.

Looked for in this order: a path that the user gives; the folder $CONCORD_WEIGHTS; the cache
($XDG_CACHE_HOME/concord-av, else ~/.cache/concord-av); an installed package that ships them; a URL. A known SHA-256 is
checked each time; checksums are cached by size and modification time, so a large file is read once. Downloads resume,
and get their final name only when complete. In the cache, the name of a file from a URL without a known checksum
includes a hash of that URL, because one site may have different weights of the same name in two folders. If a store, a
fit or a detector names the weights (`recorded`), they are used only if their SHA-256 is the recorded one, which is
compared before anything in them is parsed. Weights that another person's file names are looked for by name, only in
$CONCORD_WEIGHTS and the cache, never at the path or URL in that file.
"""

import hashlib
import http.client
import importlib.util
import json
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock

from concord import files
from teachers.base import TeacherError

log = logging.getLogger(__name__)

CHUNK = 1 << 20  # bytes read at a time
ATTEMPTS = 4  # attempts at a download
TIMEOUT_S = 30.0  # for one connection


class WeightsError(TeacherError):
    """Weights are missing, are not what they should be, or could not be downloaded."""


class OtherWeights(WeightsError):
    """Weights were found, but they are not the recorded ones."""


@dataclass(frozen=True)
class _Record:
    sums: frozenset[str]
    foreign: bool


_RECORD: ContextVar[_Record | None] = ContextVar("record", default=None)


@contextmanager
def recorded(sums: Iterable[str], foreign: bool) -> Iterator[None]:
    """Within the block, `resolve` returns only weights with one of these SHA-256 and raises OtherWeights for others.
    `foreign`: another person's file names them, not the user, so only the file names in paths and URLs are used."""
    token = _RECORD.set(_Record(frozenset(sums), foreign))
    try:
        yield
    finally:
        _RECORD.reset(token)


def is_given(path: str) -> bool:
    """Whether the argument after "NAME:" is a file here; False, without a check, if another person's file gave the
    argument."""
    record = _RECORD.get()
    return not (record and record.foreign) and Path(path).exists()


@dataclass(frozen=True)
class Weights:
    """A file of weights that was found and, if its checksum is known, checked."""

    path: Path
    source: str  # path, package or URL that it came from
    sha256: str  # of the original file (before a conversion)


@dataclass(frozen=True)
class Package:
    """An installed package that ships the weights, perhaps in another format."""

    distribution: str  # its name for pip
    module: str  # top-level module that holds the file
    file: str  # path inside the module
    sha256: str | None = None
    convert: Callable[[Path], bytes] | None = None  # converts it to the format that is used here, for the cache
    how: str = ""  # the command that gets it; without one, its distribution is to be installed

    @property
    def offer(self) -> str:
        """What a user can do to get it."""
        return f"run {self.how}" if self.how else f"install {self.distribution}"

    @property
    def source(self) -> str:
        try:
            return f"{self.distribution}=={version(self.distribution)} {self.file}"
        except PackageNotFoundError:  # a plain folder on sys.path
            return f"{self.distribution} {self.file}"


def cache_dir() -> Path:
    """The cache folder; it need not exist yet. A relative $XDG_CACHE_HOME is ignored, as its specification requires."""
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (root if root.is_absolute() else Path.home() / ".cache") / "concord-av"


def cached_path(name: str, url: str | None = None, sha256: str | None = None) -> Path:
    """Where the cache has, or would have, the weights called `name`."""
    mark = f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-" if url is not None and sha256 is None else ""
    return cache_dir() / f"{mark}{name}"


def resolve(
    name: str,
    *,
    path: Path | str | None = None,
    package: Package | None = None,
    url: str | None = None,
    sha256: str | None = None,
) -> Weights:
    """The weights called `name` (a file name), from the first place that has them.

    Raises WeightsError if none has them or a checksum differs. `sha256` is that of the file under its own name. It is
    checked for a given path, $CONCORD_WEIGHTS, the cache and the download.
    """
    record = _RECORD.get()
    if record is None:
        return _resolve(name, path, package, url, sha256)
    if sha256 is not None and sha256 not in record.sums:
        url = None  # its file could not be used; a package may have the right one
    if record.foreign:
        path, url = None, url if sha256 is not None else _fetched(name, url)
    found = _resolve(name, path, package, url, sha256)
    if found.sha256 not in record.sums:
        raise OtherWeights(f"{found.path} is not what was recorded (SHA-256 {found.sha256})")
    return found


def _fetched(name: str, url: str | None) -> str | None:
    """The URL, if the cache has its file."""
    return url if url is not None and cached_path(name, url).is_file() else None


def _resolve(
    name: str, path: Path | str | None, package: Package | None, url: str | None, sha256: str | None
) -> Weights:
    if path is not None:
        file = Path(path).expanduser()  # no shell expands the part after "NAME:"
        if not file.is_file():
            raise WeightsError(f"weights file {path} does not exist")
        return _checked(file, str(file), sha256)
    folder = os.environ.get("CONCORD_WEIGHTS")
    if folder and (Path(folder) / name).is_file():
        return _checked(Path(folder) / name, str(Path(folder) / name), sha256)
    cached = cached_path(name, url, sha256)
    if cached.is_file():
        return _checked(cached, url or str(cached), sha256)
    if package is not None:
        found = _packaged(package)
        if found is not None:
            return found
    if url is not None:
        with lock(cached):
            if not cached.is_file():  # another process may have fetched it meanwhile
                download(url, cached, sha256=sha256)
        return _checked(cached, url, sha256)
    offer = f", or {package.offer}" if package else ""
    raise WeightsError(f"no weights '{name}': put the file into $CONCORD_WEIGHTS or {cache_dir()}{offer}")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal; remembered in the cache until the file's size or time changes."""
    path = path.resolve()
    stat = path.stat()
    stamp = [stat.st_size, stat.st_mtime_ns]
    memory = cache_dir() / "checksums.json"
    known = _read_json(memory).get(str(path))
    if isinstance(known, list) and known[:-1] == stamp and isinstance(known[-1], str):
        return known[-1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        files.write(memory, json.dumps({**_read_json(memory), str(path): [*stamp, digest]}, indent=1).encode())
    except OSError as error:  # without a writable cache the checksum is computed again each time
        log.debug("checksum of %s is not remembered: %s", path, error)
    return digest


def download(url: str, path: Path, *, sha256: str | None = None, pause_s: float = 2.0) -> None:
    """Fetch `url` to `path`: an interrupted download is continued, and only a complete file with the right checksum
    gets the name.

    Raises WeightsError if ATTEMPTS attempts fail (the received part is kept for the next run) or the checksum differs.
    """
    partial = path.with_name(path.name + ".download")
    path.parent.mkdir(parents=True, exist_ok=True)
    log.info("downloading %s", url)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _fetch(url, partial)
            break
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            final = isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code not in (408, 416, 429)
            if (
                isinstance(error, urllib.error.HTTPError) and error.code == 416
            ):  # the local part is longer than the file
                partial.unlink(missing_ok=True)
            if final or attempt == ATTEMPTS:
                raise WeightsError(f"download of {url} failed: {error}; or put the file at {path} yourself") from error
            log.warning("download of %s was interrupted (%s); attempt %d of %d", url, error, attempt + 1, ATTEMPTS)
            time.sleep(pause_s * attempt)
    with partial.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 is not None and found != sha256:
        partial.unlink()
        raise WeightsError(f"{url}: checksum mismatch, expected sha256 {sha256}, found {found}; nothing was kept")
    partial.replace(path)


def _fetch(url: str, partial: Path) -> None:
    """One attempt: append the missing part to `partial`; raises if the connection ends before the announced length."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
        if have and reply.status != 206:  # the server does not support resuming
            have = 0
        length = reply.headers.get("Content-Length")
        total = have + int(length) if length is not None else None
        with partial.open("ab" if have else "wb") as file:
            while block := reply.read(CHUNK):
                file.write(block)
                have += len(block)
                _progress(partial.stem, have, total)
    if total is not None and have < total:
        raise http.client.IncompleteRead(b"", total - have)


def _progress(name: str, have: int, total: int | None) -> None:
    """A progress line that is redrawn, on a terminal."""
    if not sys.stderr.isatty():
        return
    of = f" of {total / 1e6:.1f} MB ({100 * have / total:.0f} %)" if total else " MB"
    print(f"\r{name}: {have / 1e6:.1f}{of}", end="\n" if have == total else "", file=sys.stderr, flush=True)


def _checked(path: Path, source: str, expected: str | None) -> Weights:
    found = sha256_of(path)
    if expected is not None and found != expected:
        raise WeightsError(
            f"{path}: checksum mismatch, expected sha256 {expected}, found {found}; remove the file or replace it"
        )
    return Weights(path, source, found)


def _packaged(package: Package) -> Weights | None:
    """The package's file, converted into the cache if needed; None if the package or the file is missing."""
    spec = importlib.util.find_spec(package.module)  # does not import it
    folders = list(spec.submodule_search_locations or []) if spec else []
    file = next((Path(folder) / package.file for folder in folders if (Path(folder) / package.file).is_file()), None)
    if file is None:
        return None
    original = _checked(file, package.source, package.sha256)
    if package.convert is None:
        return original
    converted = cache_dir() / f"{package.distribution}-{original.sha256[:12]}.pt"
    record = converted.with_suffix(".json")  # the converted file's own checksum; written last
    with lock(converted):
        if not (converted.is_file() and _read_json(record)):
            log.info("converting %s", package.source)
            files.write(converted, package.convert(file))
            files.write(record, json.dumps({"sha256": sha256_of(converted), "from": original.sha256}).encode())
    _checked(converted, package.source, _read_json(record)["sha256"])
    return Weights(converted, f"{package.source} (converted)", original.sha256)


def lock(path: Path) -> FileLock:
    """A lock for the creation of the file at `path`; the system releases it when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f".{path.name}.lock"), fallback_to_soft=False)


def _read_json(path: Path) -> dict:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
