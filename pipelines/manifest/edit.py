"""Changes the rows of a manifest: merges corpora, moves paths, selects rows.

Ids never change, so that existing stores and lists of splits remain valid. Nothing is written here.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from pipelines.corpora import faults, manifest
from pipelines.corpora.faults import Fault
from pipelines.corpora.fields import LABELS, ManifestError
from pipelines.corpora.manifest import Row
from store.place import is_url

FIELDS = (
    "corpus",
    "method",
    "category",
    "split",
    "label",
    "audio_fake",
    "video_fake",
    "identities",
    "group",
    "source",
    "id",
)
SHOWN = 12


def load(corpora: Sequence[str], files: Sequence[str]) -> list[Row]:
    """Rows of corpora (KIND:ROOT) and manifest files in one list, grouped again by the people they share.

    Raises ManifestError if one cannot be read, or two rows have the same id.
    """
    rows: list[Row] = []
    seen: dict[str, tuple[str, str]] = {}
    for source in [*corpora, *(f"csv:{file}" for file in files)]:
        for row in manifest.load(source):
            path, other = seen.setdefault(row.id, (row.path, source))
            if other != source:
                raise ManifestError(
                    f"{source} and {other} both have the id {row.id} ({row.path} and {path}); name each corpus once, or give "
                    "the rows of one of them another corpus name in its manifest"
                )
            rows.append(row)
    return manifest.with_groups(rows) if len(corpora) + len(files) > 1 else rows


def remap(rows: Sequence[Row], old: str, new: str) -> tuple[list[Row], int]:
    """Rows with the folder `old` of picture and sound replaced by `new`, and how many changed.

    Whole folder names are compared: /data does not match /data2. Faults missing_media and missing_sound are dropped for
    files that now exist; if a picture exists but its sound does not, the fault becomes missing_sound. Files in buckets
    are not checked. Raises ManifestError if no path begins with `old`.
    """
    moved, changed, there = [], 0, Files()
    for row in rows:
        path, sound = (_moved(value, old, new) for value in (row.path, row.audio_path))
        if (path, sound) == (row.path, row.audio_path):
            moved.append(row)
            continue
        changed += 1
        kinds = [fault.kind for fault in row.faults]
        found = {kind: there.has(place) for kind, place in (("missing_media", path), ("missing_sound", sound))}
        told = [fault for fault, kind in zip(row.faults, kinds, strict=True) if not found.get(kind, False)]
        silent = sound and not is_url(sound) and not found["missing_sound"] and "missing_sound" not in kinds
        if silent and "missing_media" in kinds and found["missing_media"]:
            told.append(Fault("missing_sound", f"{sound}, the sound of {row.id}, is not there"))
        moved.append(replace(row, path=path, audio_path=sound, faults=tuple(told)))
    if not changed:
        starts = Counter("/".join(row.path.split("/")[:4]) for row in rows)
        known = ", ".join(name for name, _ in starts.most_common(3))
        raise ManifestError(f"--remap: no path begins with the folder {old}; most begin with {known}")
    return moved, changed


def _moved(path: str, old: str, new: str) -> str:
    old, new = old.rstrip("/"), new.rstrip("/")
    return new + path[len(old) :] if path == old or path.startswith(f"{old}/") else path


class Files:
    """Which files exist; each folder is read once. Files in buckets are unknown and count as missing."""

    def __init__(self) -> None:
        self.names: dict[str, frozenset[str]] = {}

    def has(self, path: str) -> bool:
        if not path or is_url(path):
            return False
        parent, _, name = path.rpartition("/")
        if parent not in self.names:
            try:
                self.names[parent] = frozenset(os.listdir(parent or "/"))
            except OSError:  # no such folder, so no files
                self.names[parent] = frozenset()
        return name in self.names[parent]


def where(rows: Sequence[Row], condition: str) -> list[Row]:
    """Rows that meet FIELD=VALUE,VALUE,... (one of the values) or FIELD!=VALUE,... (none of them).

    A corpus is named in full or by its kind; label is real, fake or unknown; method=real means real clips; an empty
    value means "not named". Raises ManifestError for an unknown field, and for a value that no row has, because that is
    most likely a typing error.
    """
    name, equals, text = condition.partition("=")
    unlike = name.endswith("!")
    name = name.removesuffix("!").strip()
    if not equals or name not in FIELDS:
        raise ManifestError(
            f'--where takes FIELD=VALUE,VALUE or FIELD!=VALUE, not "{condition}"; fields are {", ".join(FIELDS)}'
        )
    wanted = {value.strip() for value in text.split(",")}
    values = [_values(row, name) for row in rows]
    if unknown := sorted(wanted - set().union(*values)):
        known = sorted(set().union(*values))
        more = f" and {len(known) - SHOWN:,} more" if len(known) > SHOWN else ""
        raise ManifestError(
            f'--where {condition}: no row has the {name} "{unknown[0]}"; there are {", ".join(known[:SHOWN])}{more}'
        )
    return [row for row, mine in zip(rows, values, strict=True) if bool(wanted & mine) != unlike]


def _values(row: Row, name: str) -> set[str]:
    """The values of a row's field that match in a condition."""
    value = getattr(row, name)
    if name in ("label", "audio_fake", "video_fake"):
        return {LABELS[value], str(value) if value >= 0 else ""}
    if name == "corpus":
        return {value, value.partition(":")[0]}
    if name == "method" and row.label == 0 and not value:
        return {"", "real"}
    return set(value) or {""} if isinstance(value, tuple) else {value}


def drop_fault(rows: Sequence[Row], kind: str) -> list[Row]:
    """Rows without a fault of this kind; kinds are those of `pipelines.corpora.faults`."""
    bad = {fault.id for fault in faults.of_rows(rows) if fault.kind == faults.kind_of(kind)}
    return [row for row in rows if row.id not in bad]
