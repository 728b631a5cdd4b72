"""Output files of commands: a new name, or an earlier output of the same kind; nothing else is ever replaced.

`check` checks all outputs of a run before its work starts. An existing file is replaced if its content shows that it is
an earlier output of this kind (`marked`), or if the user requests it (`overwrite`) and this run does not read the file.
No output goes into a store, through a symbolic link, or to the place of another output. Devices and pipes (/dev/stdout)
are written to directly. `write` writes one completely or not at all.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from concord.files import stream
from store.layout import StoreError
from store.place import Place, is_url, place
from store.place.bounds import store_of

SEEN = 1 << 16  # bytes at both ends of a file in which marks are looked for
NULL = "/dev/null"  # the one place that several outputs may share

Location = str | os.PathLike[str] | Place


class Refused(StoreError):
    """An output would replace an unrelated file; the text says what to do."""


@dataclass(frozen=True)
class Kind:
    """The name of a kind of output ("a page of pipelines.audit"), and how an earlier file of this kind is
    recognised."""

    name: str
    is_ours: Callable[[Path], bool]
    makes_folder: bool = False  # whether the command makes the folder for it


@dataclass(frozen=True)
class Output:
    """One output of a run; `overwrite`: None where the command has no such option, else whether it was given."""

    path: Location
    kind: Kind
    overwrite: bool | None = None


def marked(name: str, begin: bytes | tuple[bytes, ...], *marks: bytes, makes_folder: bool = False) -> Kind:
    """Outputs that begin with some bytes (one of several) and bear all `marks` near their beginning or end."""

    def is_ours(path: Path) -> bool:
        with path.open("rb") as file:
            ends = file.read(SEEN)
            file.seek(max(0, os.fstat(file.fileno()).st_size - SEEN))
            ends += b"\n" + file.read(SEEN)
        return ends.startswith(begin) and all(mark in ends for mark in marks)

    return Kind(name, is_ours, makes_folder)


def page(command: str) -> Kind:
    """HTML pages of a command, which begin with `head(command)`."""
    return marked(f"a page of {command}", head(command).encode())


def head(command: str) -> str:
    """How a page of a command begins."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="generator" content="concord-av {command}">'
    )


def picture(command: str) -> Kind:
    """Pictures of a command, PNG, SVG or PDF, drawn with `picture_metadata`."""
    return marked(f"a picture of {command}", (b"\x89PNG", b"<?xml", b"%PDF"), f"concord-av {command}".encode())


def picture_metadata(command: str, kind: str) -> dict[str, str]:
    """The metadata that matplotlib writes into a picture, so that it is recognised later."""
    return {"Software" if kind == "png" else "Creator": f"concord-av {command}"}


def arrays(command: str) -> Kind:
    """.npz files of a command that `npz` marks."""
    return marked(f"arrays of {command}", b"PK", f"concord-av {command}".encode())


def npz(packed: io.BytesIO, command: str) -> bytes:
    """An .npz file with a comment by which it is recognised later."""
    with zipfile.ZipFile(packed, "a") as archive:
        archive.comment = f"concord-av {command}".encode()
    return packed.getvalue()


def unmarked(name: str, makes_folder: bool = False) -> Kind:
    """Outputs without a mark, such as tables."""
    return Kind(name, lambda _: False, makes_folder)


def check(
    outputs: Iterable[Output], inputs: Iterable[Location] = (), folders: Iterable[tuple[Location, Kind]] = ()
) -> None:
    """Raises Refused for the first output that may not be written.

    `inputs`: files that the run reads, and folders of which it may read every file. `folders`: those that the command makes for
    its outputs, where they are not there.
    """
    reads = list(inputs)
    taken: dict[str, Kind] = {}
    made: set[str] = set()
    for path, kind in folders:
        check_folder(path, kind.name)
        made.add(_real(path))
        taken[_real(path)] = kind
    for output in outputs:
        here = _real(output.path)
        if here in taken and here != NULL:
            both = f"both {taken[here].name} and {output.kind.name}"
            if taken[here].name == output.kind.name:
                both = f"two outputs, {output.kind.name} each"
            raise Refused(f"{place(output.path)} is given for {both}: give each its own place")
        taken[here] = output.kind
        _check_one(output, reads, made)


def check_folder(path: Location, name: str) -> None:
    """Raises Refused where a folder of outputs, `name` for a person, can neither be used nor made."""
    where = Path(os.fspath(place(path).path))
    if os.path.lexists(where) and not where.is_dir():
        raise Refused(f"{where} is not a folder; give the name of a folder for {name}")
    if not where.absolute().parent.is_dir():
        raise Refused(f"{where} is not in a folder that exists; make {where.parent} first")
    _check_outside(path, name)


def write(path: Location, data: bytes) -> None:
    """Write an output completely or not at all. Raises OSError, which names it; an earlier file is then unchanged."""
    where = place(path)
    try:
        where.write(data)
    except OSError as error:
        raise OSError(error.errno or 0, error.strerror or str(error), str(where)) from error


def is_stream(path: Path) -> bool:
    """Whether it is a device or a pipe, which has no file to replace."""
    return stream(str(path)) is not None or (path.exists() and not path.is_file() and not path.is_dir())


def _check_one(output: Output, inputs: Sequence[Location], made: set[str]) -> None:
    where, name = place(output.path), output.kind.name
    if is_url(where):
        _check_outside(where, name)
        if where.exists():
            if not output.overwrite:
                raise Refused(_there(output))
            if str(where) in {str(place(one)) for one in inputs if is_url(one)}:
                raise Refused(_read(output))
        return
    if stream(where.location) is not None:
        return
    path = Path(where.location)
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode) and path.exists() and not path.is_file() and not path.is_dir():
            mode = path.stat().st_mode  # follows a link to a device or a pipe, which is never replaced
    except (FileNotFoundError, NotADirectoryError):
        mode = 0
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}; choose another name for {name}") from error
    if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
        return
    if stat.S_ISLNK(mode):
        raise Refused(
            f"{path} is a symbolic link, which would be replaced: give the file itself, or a new name for {name}"
        )
    if stat.S_ISDIR(mode):
        raise Refused(f"{path} is a folder; give the name of a file for {name}")
    if mode and not stat.S_ISREG(mode):
        raise Refused(f"{path} is a disk or a socket, and outputs are not written to those: choose a file for {name}")
    folder = path.absolute().parent
    while output.kind.makes_folder and not os.path.lexists(folder):
        folder = folder.parent
    if os.path.realpath(folder) not in made and not folder.is_dir():
        if os.path.lexists(folder):
            raise Refused(f"{path} cannot be written: {folder} is not a folder; choose another place for {name}")
        raise Refused(f"{path} is not in a folder that exists; make {path.parent} first")
    _check_outside(path, name)
    if mode:
        _check_replaced(output, path, inputs)


def _check_replaced(output: Output, path: Path, inputs: Sequence[Location]) -> None:
    """Raises Refused if the file at `path` must not be replaced."""
    about = path.stat()
    for descriptor in (1, 2):  # the shell may redirect them to a file
        try:
            if os.path.samestat(about, os.fstat(descriptor)):
                raise Refused(
                    f"{path} already receives what this command prints: choose another name for {output.kind.name}"
                )
        except OSError:  # closed
            continue
    try:
        ours = about.st_size == 0 or output.kind.is_ours(path)
    except OSError as error:
        raise Refused(f"{path} exists and cannot be read: {error.strerror}; choose another name") from error
    if not ours and not output.overwrite:
        raise Refused(_there(output))
    real = Path(os.path.realpath(path))
    for one in inputs:
        if is_url(one):
            continue
        there = place(one).location
        if os.path.isdir(there):
            below = not ours and Path(os.path.realpath(there)) in real.parents
        else:
            below = os.path.exists(there) and os.path.samestat(about, os.stat(there))
        if below:
            raise Refused(_read(output))


def _check_outside(path: Location, name: str) -> None:
    if root := store_of(path):
        raise Refused(
            f"{place(path)} lies in the store {root}, where only its own commands write: choose a place outside it for {name}"
        )


def _there(output: Output) -> str:
    text = f"{place(output.path)} exists and is not {output.kind.name}: choose another name, or move it away first"
    if output.overwrite is False:
        text = f"{place(output.path)} exists already: choose another name, or replace it with --overwrite"
    return text


def _read(output: Output) -> str:
    return f"{place(output.path)} is read by this run and would be lost: choose another name for {output.kind.name}"


def _real(path: Location) -> str:
    where = place(path)
    return str(where) if is_url(where) else os.path.realpath(where.location)
