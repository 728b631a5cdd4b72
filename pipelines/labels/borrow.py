"""Uses the fit of another store, or of a file, for a store with the same teachers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import store
from pipelines.errors import UsageError
from store.place import Place, is_url
from store.similarity import Fit, fitfile


def borrowed_fit(path: Place, mine: dict[str, Any]) -> tuple[Fit, dict[str, Any]]:
    """The fit of another store or of a file, and its note; `mine` are this store's teachers by side. Raises UsageError
    if the fit is for other teachers."""
    if not is_url(path) and path.exists():
        fit, theirs, note = fitfile.load(path.path)
    else:
        other = store.open(path)
        if other.fit is None:
            raise UsageError(f"{path} has no fit; run precompute.py --store {path} --refit first")
        check_teachers(path, {"teachers": {"face": {"options": {}}, **(other.attrs.get("teachers") or {})}})
        fit, theirs = other.fit, other.attrs["teachers"]
        note = {**(other.attrs.get("similarity") or {}), "clip_frames": other.fit_length}
    for side in ("asr", "vsr"):
        ours, its = mine[side], theirs[side]
        if (ours["name"], ours.get("sha256"), ours["dim"]) != (its["name"], its.get("sha256"), its["dim"]):
            raise UsageError(
                f"the fit of {path} is for --{side} {its['name']}, this store has {ours['name']}; they cannot be combined"
            )
    note = {k: v for k, v in note.items() if k not in ("auc", "brier", "offset", "calibrated_on", "complete")}
    return fit, {**note, "fit_from": str(path)}


def check_teachers(place: Place, attrs: Mapping[str, Any]) -> None:
    """Raises UsageError if a store does not say which teachers it was made with."""
    told = attrs.get("teachers") or {}
    for side, needed in (("asr", ("name", "dim")), ("vsr", ("name", "dim")), ("face", ("options",))):
        teacher = told.get(side) or {}
        if not all(name in teacher for name in needed):
            raise UsageError(
                f"{place} does not say which teacher of {side} it was made with, so it cannot be used here"
            )
