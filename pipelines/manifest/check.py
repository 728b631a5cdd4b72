"""Checks whether a manifest can be used, and lists all its faults, not only the first.

A fault that would stop a run makes it unusable: an invalid value, a row without a path, a duplicate id. A run tolerates
all other faults. No file is opened, and files in buckets are not checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.corpora import faults, manifest
from pipelines.corpora.faults import ClipFault
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import CATEGORIES, Row
from pipelines.manifest.edit import Files
from store.place import is_url

LATE_S = 0.04  # a forged part may end a frame after the clip: rounding


def of_file(path: str) -> tuple[list[ClipFault], list[ClipFault]]:
    """Faults that prevent a manifest file from being read (`bad_COLUMN`, `no_path`, `double_id`), and its rows'
    `label_conflict`.

    The id of a fault is the row's id, its path, or its line number. A label_conflict is a contradiction between
    columns, which reading corrects silently. Raises ManifestError if the file as a whole is not a manifest.
    """
    bad: list[ClipFault] = []
    conflicts: list[ClipFault] = []
    seen: dict[tuple[str, str], int] = {}
    for line, values in enumerate(manifest.records(path), start=2):
        try:
            row = Row.of(values)
        except ManifestError:
            bad += _wrong(values, f"line {line}")
            continue
        name = row.id or row.path
        if (first := seen.setdefault((row.corpus, name), line)) != line:
            text = f"lines {first} and {line} of {path} have the id {name}; give one of them another id"
            bad.append(ClipFault("double_id", name, text))
        parts = (row.video_fake, row.audio_fake)
        if row.label == 0 and 1 in parts:
            text = f"label is 0, but video_fake is {parts[0]} and audio_fake {parts[1]}; the label is used"
            conflicts.append(ClipFault("label_conflict", name, text))
    return bad, conflicts


def _wrong(values: Mapping[str, Any], line: str) -> list[ClipFault]:
    """Each invalid value of a line."""
    where = {"path": values.get("path")}
    try:
        Row.of(where)
    except ManifestError:
        return [ClipFault("no_path", line, f"{line} has no path; give every row one")]
    found = []
    for name, value in values.items():
        try:
            Row.of({**where, name: value})
        except ManifestError as error:
            found.append(ClipFault(f"bad_{name}", str(where["path"]), str(error)))
    return found


def check(rows: Sequence[Row]) -> tuple[list[ClipFault], int]:
    """Faults of rows, from adapters and from the checks here; and the number of rows in buckets, which were not
    checked.

    Found here: `missing_media`, `missing_sound` (no such file on this machine), `label_unknown`, `label_conflict`,
    `late_segment` (a forged part after the listed end). A kind that an adapter recorded for a row is not repeated.
    """
    found, far, files = faults.of_rows(rows), 0, Files()
    noted = {(fault.kind, fault.id) for fault in found}

    def add(kind: str, row: Row, text: str) -> None:
        if (kind, row.id) not in noted:
            noted.add((kind, row.id))
            found.append(ClipFault(kind, row.id, text))

    for row in rows:
        if is_url(row.path):
            far += 1
        elif not files.has(row.path) and not faults.names_no_file(row):
            add("missing_media", row, f"{row.path} does not exist; --remap OLD=NEW says where it is now")
        silent = row.audio_path and not is_url(row.audio_path) and not files.has(row.audio_path)
        if silent and ("missing_media", row.id) not in noted:
            add("missing_sound", row, f"{row.audio_path} does not exist; --remap OLD=NEW says where it is now")
        if row.label < 0:
            add(
                "label_unknown", row, "neither real nor fake, so nothing can be learned from it and it cannot be scored"
            )
        parts = (row.video_fake, row.audio_fake)
        if row.label == 1 and parts == (0, 0):
            add("label_conflict", row, "label is 1, but neither picture nor sound is fake")
        if row.category in CATEGORIES.values() and -1 not in parts and CATEGORIES[parts] != row.category:
            add("label_conflict", row, f"category is {row.category}, but its labels say {CATEGORIES[parts]}")
        spans = (*row.audio_segments, *row.video_segments)
        if spans and row.label == 0:
            add("label_conflict", row, f"label is 0, but {len(spans)} parts are listed as forged")
        if spans and row.listed_frames and row.listed_fps:
            seconds, end = row.listed_frames / row.listed_fps, max(end for _, end in spans)
            if end > seconds + LATE_S:
                add("late_segment", row, f"a forged part ends at {end:g} s, the clip at {seconds:g} s")
    return found, far
