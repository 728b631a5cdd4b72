"""Parses the values of a manifest's row from the cells of a table; an invalid value raises an error that describes
it."""

from __future__ import annotations

import math
import numbers
import os
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from concord import plain_json
from concord.errors import ConcordError
from concord.text import spelled
from pipelines.corpora.faults import Fault
from store.layout import StoreError
from store.place import Place, is_url, place

PATHS = ("path", "audio_path")  # columns that may hold bytes that are not UTF-8, as file names may
LONGEST = 1 << 16  # characters of a cell
MOST_TRACKS = 64  # as `pipelines.media.files.MAX_STREAMS`
LABELS = {0: "real", 1: "fake", -1: "unknown"}


class ManifestError(ConcordError):
    """A corpus or manifest that cannot be used; the text is one sentence that says what to do."""


def is_empty(value: Any) -> bool:
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    if isinstance(value, float):
        return value != value
    return type(value).__name__ in ("NAType", "NaTType")  # of pandas


def as_text(value: Any, name: str, where: str) -> str:
    """Text of a cell that holds text or, for ids and groups only, a number; surrogates stand for bytes of file
    names."""
    kinds: Any = (str, os.PathLike) if name in PATHS else (str, os.PathLike, numbers.Real)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise ManifestError(f"{where}: {name} is a {type(value).__name__}, expected text")
    text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    if "\0" in text or len(text) > LONGEST:
        raise ManifestError(f"{where[:200]}: {name} holds a NUL byte, or more than {LONGEST} characters")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ManifestError(f"{where!a}: {name} holds half of a surrogate pair, which is not a character") from None
    if name not in PATHS:
        text = spelled(text)
    return text


def as_label(value: Any, name: str, where: str) -> int:
    words = {"real": 0, "fake": 1, "unknown": -1, "true": 1, "false": 0}
    text = str(value).strip().lower()
    try:
        number = words[text] if text in words else float(text)
    except ValueError:
        number = 9
    if number not in (-1, 0, 1) or isinstance(value, list | dict):
        raise ManifestError(f'{where}: {name} is "{value}"; use 0 (real), 1 (fake) or leave it empty')
    return int(number)


def as_number(value: Any, name: str, where: str) -> float:
    try:
        number = float(value)
        if not 0 <= number < math.inf:
            raise ValueError("not a count or rate")
    except (TypeError, ValueError, OverflowError) as error:
        raise ManifestError(
            f'{where}: {name} is "{str(value)[:80]}", which is not a number of at least 0; correct it or leave it empty'
        ) from error
    return number


def as_track(value: Any, name: str, where: str) -> int:
    """Number of a sound track, from 1; 0 for "auto"."""
    text = str(value).strip().lower()
    try:
        number = 0 if text == "auto" else float(text)
        if isinstance(value, bool) or not (text == "auto" or 1 <= number <= MOST_TRACKS) or number != int(number):
            raise ValueError("not the number of a track")
    except (ValueError, OverflowError) as error:
        raise ManifestError(
            f'{where}: {name} is "{text[:80]}"; use auto, or the number of a sound track, counted from 1'
        ) from error
    return int(number)


def as_names(value: Any, name: str, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        try:
            value = plain_json.parse(value) if value.lstrip().startswith("[") else [value]
        except ValueError as error:
            raise ManifestError(f"{where}: {name} is not a JSON list ({error}): {value[:200]}") from error
    try:
        items = list(value)
    except TypeError as error:
        raise ManifestError(f"{where}: {name} is a {type(value).__name__}, expected a list of names") from error
    if isinstance(value, Mapping | bytes):
        raise ManifestError(f"{where}: {name} is a {type(value).__name__}, expected a list of names")
    return tuple(as_text(item, name, where) for item in items)


def as_faults(value: Any, where: str) -> tuple[Fault, ...]:
    """Faults of a cell, each as "kind: sentence" or a Fault."""
    if isinstance(value, list | tuple):
        value = [str(fault) if isinstance(fault, Fault) else fault for fault in value]
    return tuple(map(Fault.of, as_names(value, "faults", where)))


def as_segments(value: Any, name: str, where: str) -> tuple[tuple[float, float], ...]:
    try:
        pairs = plain_json.parse(value) if isinstance(value, str) else value
        spans = tuple((float(start), float(end)) for start, end in pairs)
    except (ValueError, TypeError, OverflowError) as error:
        raise ManifestError(f"{where}: {name} is not a JSON list of [start_s, end_s]: {str(value)[:200]}") from error
    if any(not 0 <= start <= end < math.inf for start, end in spans):
        raise ManifestError(
            f"{where}: {name} has a part that ends before it starts, never ends, or begins below 0: {str(value)[:200]}"
        )
    return spans


def absolute(path: str, base: Path | Place) -> str:
    """The target of a row's path: an absolute path, or a bucket's URL."""
    try:
        if is_url(path):
            return str(place(path))
        path = str(place(path)) if path.startswith("file://") else os.path.expanduser(path)
        if isinstance(base, Path) or os.path.isabs(path):
            return os.path.normpath(base / path if isinstance(base, Path) else path)
        scheme, _, rest = str(base).partition("://")
        joined = posixpath.normpath(f"{rest}/{path}")
        if not joined.startswith(f"{rest.partition('/')[0]}/"):
            raise ManifestError(f"manifest row of {path} leads out of the bucket of {base}; give its URL")
        return str(place(f"{scheme}://{joined}"))
    except StoreError as error:
        raise ManifestError(f"manifest row of {path}: {error}") from error
