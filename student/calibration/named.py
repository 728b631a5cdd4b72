"""The fit that answers rest on where it comes as one file: a path, a name in the cache, or the default one.

A fit called "default" in the cache (`teachers.files.fits`) takes the place of the package's, and the answer says so; "package"
names the package's. Files come from anyone: `fitfile` opens them without pickle and checks every array.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from concord.text import did_you_mean, plain
from store import StoreError
from store.similarity import Fit, fitfile
from teachers.files import fits

LONGEST = 200  # characters of what a file says of itself


@dataclass(frozen=True)
class Named:
    """A fit, its teachers' provenance by side, its note, and where it comes from, for the user."""

    fit: Fit
    teachers: Mapping[str, Any]
    note: Mapping[str, Any]
    source: str


def asked(fit_from: str) -> Named | None:
    """The fit of --fit-from where that is a file or a name; None for what is a store. Raises StoreError for neither."""
    if os.path.isfile(fit_from):
        return Named(*fitfile.load(fit_from), fit_from)
    if "://" in fit_from or os.path.isdir(fit_from):
        return None
    if fit_from == fits.PACKAGE:
        return _package()
    if path := fits.find(fit_from):
        return _read(path, f"{path} ({fit_from})")
    known = [*fits.names(), fits.PACKAGE]
    near = did_you_mean(fit_from, known)
    raise StoreError(
        f"--fit-from {fit_from}: there is no such file or store here, and no fit of that name ({', '.join(known)}){near}"
    )


def default() -> Named:
    """The fit called "default" where there is one, else the package's. Raises StoreError if that file cannot be read."""
    path = fits.find(fits.DEFAULT)
    if path is None:
        return _package()
    try:
        return _read(path, f"{path}, the default here in place of the package's")
    except StoreError as error:
        raise StoreError(f"{error}; remove it, or name another fit with --fit-from ({fits.PACKAGE})") from error


def _package() -> Named:
    fit, teachers, note = fitfile.default()
    return Named(fit, teachers, note, f"the package, learned on {note['learned_on']}")


def _read(path: Path, source: str) -> Named:
    fit, teachers, note = fitfile.load(path)
    learned = note.get("learned_on")
    if isinstance(learned, str) and learned:  # the text of whoever made the file
        source = f"{source}, learned on {plain(learned)[:LONGEST]}"
    return Named(fit, teachers, note, source)
