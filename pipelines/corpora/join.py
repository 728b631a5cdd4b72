"""Joins the list of a corpus with the files on disk: nothing is lost, and each difference becomes a fault.

An adapter makes a row for everything in its list and says how to read a file without a line; this module does the rest.
Its faults: `listed_twice`, `list_conflict` (the lines disagree), `missing_media`, `not_listed`. Reads local folders and
follows links in them; files whose name or folder begins with a dot are not clips.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from concord import plain_json
from pipelines.corpora.faults import Fault
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import VIDEO_SUFFIXES, Row

T = TypeVar("T", dict, list)

LIST_BYTES = 4 << 30  # largest list of a corpus; that of AV-Deepfake1M has 1 GB
LONGEST_DIFFERENCE_S = 0.5  # tolerated between listed picture and sound: more than padding explains


def fault(row: Row, kind: str, text: str) -> Row:
    """The row with one more fault, unless it already has it."""
    found = Fault(kind, text)
    return row if found in row.faults else replace(row, faults=(*row.faults, found))


def files(root: Path, suffixes: Iterable[str] = VIDEO_SUFFIXES) -> list[str]:
    """Files below `root` with one of the suffixes, as sorted paths relative to it with "/" between folders."""
    wanted, found = frozenset(suffixes), []
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in wanted:
                found.append(os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/"))
    return sorted(found)


def joined(
    root: Path,
    listed: Iterable[Row],
    present: Iterable[str],
    unlisted: Callable[[str], Row] = lambda key: Row(key),
    key: Callable[[str], str] = lambda path: path,
    where: str = "the corpus's list",
) -> Iterator[Row]:
    """One row per clip: listed ones in the order of the list, then files without a line.

    `listed` has paths relative to `root`; `present` are the existing files, as returned by `files`. `key` maps a path
    to a form shared by list and disk, if one of them renames folders. `unlisted` makes the row of a file without a
    line.
    """
    on_disk: dict[str, list[str]] = {}
    for path in present:
        on_disk.setdefault(key(path), []).append(path)
    rows: dict[str, Row] = {}
    for row in listed:
        name = key(row.path)
        rows[name] = _both(rows[name], row, where) if name in rows else row
    for name, row in rows.items():
        paths = on_disk.pop(name, [])
        if not paths:
            yield fault(row, "missing_media", f"{row.path} is in {where}, but there is no such file below {root}")
            continue
        path = row.path if row.path in paths else paths[0]
        yield replace(row, path=path, id=row.id or row.path)
        yield from (again(row, other, path) for other in paths if other != path)
    for paths in on_disk.values():
        first = unlisted(paths[0])
        yield fault(first, "not_listed", f"{paths[0]} is below {root}, but {where} has no line for it")
        yield from (again(unlisted(other), other, paths[0]) for other in paths[1:])


def _both(row: Row, other: Row, where: str) -> Row:
    """One row from two lines for one clip; the first decides, but the people of both are kept, so that no split
    separates them."""
    people = tuple(dict.fromkeys((*row.identities, *other.identities)))
    names = [
        name
        for name in (
            "label",
            "audio_fake",
            "video_fake",
            "method",
            "category",
            "split",
            "audio_segments",
            "video_segments",
        )
        if getattr(row, name) != getattr(other, name)
    ]
    faults = tuple(dict.fromkeys((*row.faults, *other.faults)))
    row = fault(
        replace(row, identities=people, faults=faults), "listed_twice", f"{row.path} has several lines in {where}"
    )
    if names:
        row = fault(row, "list_conflict", f"lines for {row.path} differ in {', '.join(names)}; the first is used")
    return row


def again(row: Row, path: str, first: str) -> Row:
    """The row of a second file of the same name: its path is its id."""
    row = replace(row, path=path, id=path)
    return fault(row, "found_twice", f"{path} is the same as {first}: the folders' names are spelled in two ways")


def lengths(row: Row) -> Row:
    """Adds faults for contradicting listed numbers: `declared_rate` (an impossible rate), `length_conflict`."""
    frames, fps, samples, rate = row.listed_frames, row.listed_fps, row.listed_samples, row.listed_sample_rate
    if not (frames and fps and samples and rate):
        return row
    picture, sound = frames / fps, samples / rate
    if abs(picture - sound) <= LONGEST_DIFFERENCE_S:
        return row
    if picture > 1.5 * sound:
        text = f"listed with {fps:g} fps, but {frames:g} frames in {sound:.2f} s of sound are {frames / sound:.1f} fps"
        return fault(row, "declared_rate", f"{row.id or row.path} is {text}")
    return fault(row, "length_conflict", f"{row.id or row.path}: listed picture {picture:.2f} s, sound {sound:.2f} s")


def table(path: Path, columns: Sequence[str] = (), delimiter: str = ",") -> list[dict[str, str]]:
    """Lines of a CSV (or TSV, by its `delimiter`) by column, all as text; a column without a name is called "".

    Raises ManifestError where it cannot be read or lacks one of `columns`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds NUL bytes, so it is not UTF-8 text")
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        lines = [
            {
                str(name or "").strip(): (value or "").strip()
                for name, value in line.items()
                if isinstance(value, str | None)
            }
            for line in reader
        ]
        there = [str(name or "").strip() for name in reader.fieldnames or ()]
    except (OSError, ValueError, csv.Error) as error:
        raise ManifestError(f"list {path} cannot be read: {error}") from error
    for name in columns:
        if name not in there:
            raise ManifestError(f"list {path} has no column {name!r}; it has {', '.join(map(repr, there)) or 'none'}")
    return lines


def document(path: Path, kind: type[T]) -> T:
    """A JSON file's content, a `kind` (dict or list); raises ManifestError, which names the file, for anything else."""
    try:
        content = plain_json.parse(path.read_text(encoding="utf-8-sig"), LIST_BYTES)
    except (OSError, ValueError) as error:
        raise ManifestError(f"list {path} cannot be read as JSON: {error}; fetch it again") from error
    if not isinstance(content, kind):
        raise ManifestError(f"list {path} holds a {type(content).__name__}, not a {kind.__name__}; fetch it again")
    return content


def file_of(entry: Any, name: str = "file") -> str:
    """The field of a list's entry that names its file; raises ManifestError if there is none."""
    file = entry.get(name) if isinstance(entry, Mapping) else None
    if not isinstance(file, str) or not file or "\0" in file:
        raise ManifestError(f"an entry of the list names no file: {str(entry)[:200]}; fetch the list again")
    return file


def number(values: Mapping[str, Any], name: str) -> float | None:
    """A number in a list's line, None if it is empty or not a number."""
    try:
        value = float(values.get(name, ""))
    except (TypeError, ValueError, OverflowError):
        return None
    return value if 0 <= value < math.inf else None


def segments(row: Row, name: str, values: Any, duration: float | None = None) -> Row:
    """The row with forged parts (start_s, end_s) in field `name`; parts without length and late ends become faults."""
    kept: list[tuple[float, float]] = []
    if not isinstance(values, list | tuple | None):
        row, values = fault(row, "bad_segment", f"{row.path}: forged parts {str(values)[:80]} are not a list"), ()
    for value in values or ():
        try:
            start, end = (float(x) for x in value)
        except (TypeError, ValueError, OverflowError):
            start, end = 0.0, 0.0
        if not 0 <= start < end < math.inf:
            row = fault(
                row, "bad_segment", f"{row.path}: forged part {str(value)[:80]} is not a span of time; it is ignored"
            )
            continue
        if duration is not None and end > duration + 0.04:  # one frame at 25 fps is tolerated
            row = fault(row, "late_segment", f"{row.path}: forged part ends at {end:g} s, the clip at {duration:g} s")
        kept.append((start, end))
    fields: dict[str, Any] = {name: tuple(sorted(kept))}
    return replace(row, **fields)
