"""Where fits that have a name lie: `fits/NAME.npz` in $CONCORD_WEIGHTS, then in the cache.

A fit called DEFAULT is used where none is named, in place of the one that the package ships, which can always be named as
PACKAGE. This module knows names and places only: `store.similarity.fitfile` reads the files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from teachers.files.weights import WeightsError, cache_dir

FOLDER = "fits"
DEFAULT = "default"  # the name of the fit that is used where none is named
PACKAGE = "package"  # the name of the fit that the package ships
SUFFIX = ".npz"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # a file's name on any system, and never a path


def check_name(name: str) -> None:
    """Raises WeightsError for a name that a fit in the cache cannot have."""
    if not NAME.fullmatch(name):
        raise WeightsError(f"{name!r} is not a name for a fit: letters, digits, dots, - and _ make one, no folders")
    if name == PACKAGE:
        raise WeightsError(f"{PACKAGE!r} is the name of the fit that the package ships; choose another")


def cached(name: str) -> Path:
    """Where the cache has, or would have, the fit of that name. Raises WeightsError for what is no name."""
    check_name(name)
    return cache_dir() / FOLDER / f"{name}{SUFFIX}"


def find(name: str) -> Path | None:
    """The file of the fit of that name; None if there is none, or it is no name."""
    if not NAME.fullmatch(name):
        return None
    return next((path for folder in _folders() if (path := folder / f"{name}{SUFFIX}").is_file()), None)


def names() -> list[str]:
    """The names of all fits here, sorted."""
    found = {path.name.removesuffix(SUFFIX) for folder in _folders() for path in folder.glob(f"*{SUFFIX}")}
    return sorted(name for name in found if NAME.fullmatch(name))


def _folders() -> Iterator[Path]:
    if given := os.environ.get("CONCORD_WEIGHTS"):
        yield Path(given) / FOLDER
    yield cache_dir() / FOLDER
