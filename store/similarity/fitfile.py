"""A fit in one file, to label other stores with: `precompute.py --fit-from FILE`.

A plain .npz (numpy opens it without pickle): the arrays of `Fit.to_arrays` by number, and one JSON text that says what
they are, of which teachers the fit is, and how it was made. The package ships one, made by `pipelines.default_fit`.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from concord import plain_json
from store import output
from store.arrays import attributes
from store.formats import npz
from store.layout import StoreError
from store.similarity import Fit

FORMAT = "concord-av fit"
VERSION = 2
UNLEVELLED = 1  # the version of a fit that is not level, as earlier releases read and write it
DEFAULT = Path(__file__).with_name("default_fit.npz")


def save(path: str | os.PathLike[str], fit: Fit, teachers: Mapping[str, Any], note: Mapping[str, Any]) -> None:
    """Write a fit with the provenance of its two teachers {"asr": .., "vsr": ..} and the store's note on it.

    Raises OSError that names the file.
    """
    arrays: dict[str, np.ndarray] = {}

    def strip(tree: Mapping[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, value in sorted(tree.items()):  # stores list their arrays in no fixed order
            if isinstance(value, np.ndarray):
                out[name] = {"array": f"a{len(arrays)}"}
                arrays[f"a{len(arrays)}"] = value
            elif name == "attrs":
                out[name] = {"attrs": value}
            else:
                out[name] = {"group": strip(value)}
        return out

    tree = strip(fit.to_arrays())
    text = json.dumps(
        {
            "format": FORMAT,
            "version": VERSION if fit.level else UNLEVELLED,
            "tree": tree,
            "teachers": dict(teachers),
            "note": dict(note),
        }
    )
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, header=np.array(text), **arrays)
    output.write(path, packed.getvalue())


def default() -> tuple[Fit, dict[str, Any], dict[str, Any]]:
    """The fit that the package ships, as `load` gives it."""
    return load(DEFAULT)


def load(path: str | os.PathLike[str]) -> tuple[Fit, dict[str, Any], dict[str, Any]]:
    """The fit, its teachers' provenance and its note; StoreError for any other file, and for one that a newer release made."""
    try:
        arrays = npz.read(path)
        header = plain_json.parse_dict(str(arrays["header"]))
        if header["format"] != FORMAT:
            raise StoreError(f"{path} is not a concord-av fit")
        if not plain_json.is_count(header["version"]):
            raise ValueError(f"its version is {header['version']!r}")
        if header["version"] > VERSION:
            raise StoreError(f"{path} has version {header['version']}; this release reads up to {VERSION}: update it")
        if wrong := attributes.wrong({"teachers": header["teachers"], "similarity": header["note"]}):
            raise ValueError(f"its {wrong}")

        def fill(tree: dict[str, Any]) -> dict[str, Any]:
            out: dict[str, Any] = {}
            for name, value in tree.items():
                ((kind, what),) = value.items()
                out[name] = _wide(arrays[what]) if kind == "array" else what if kind == "attrs" else fill(what)
            return out

        return Fit.from_arrays(fill(header["tree"])), header["teachers"], header["note"]
    except (*npz.ERRORS, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is not a concord-av fit, or is damaged: {error}") from error


def _is_fit(path: Path) -> bool:
    try:
        load(path)
    except StoreError:
        return False
    return True


KIND = output.Kind("a fit", _is_fit)


def _wide(array: np.ndarray) -> np.ndarray:
    """Half precision, in which a small file keeps its numbers, as f4."""
    return array.astype(np.float32) if array.dtype == np.float16 else array
