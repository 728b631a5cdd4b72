"""AV-Deepfake1M (Cai et al. 2023, arXiv 2311.15308) and AV-Deepfake1M++: partial fakes of 1 to 2 million clips.

ROOT holds any of these: `train_metadata.json`, `val_metadata.json`, one JSON per clip in `train_metadata/` or
`val_metadata/` (read for fields that the list leaves out), `test_files.txt` (`testA_files.txt`, `testB_files.txt`).
Clips are in the split's folder, in ROOT, or in another folder in it. Both spellings of modify_type (`both_modified`,
`both-modified`) are read. Labels of test clips are hidden: -1. Identity: the VoxCeleb2 or LRS3 speaker or the subject
of a silent video, from the path. 25 fps and 16 kHz are the paper's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.corpora.fields import ManifestError
from pipelines.corpora.join import document, fault, file_of, files, joined, lengths, number, segments
from pipelines.corpora.manifest import SPLITS, Row

TYPES = {"real": (0, 0), "audio_modified": (0, 1), "visual_modified": (1, 0), "both_modified": (1, 1)}
PARTS = (*SPLITS, "testA", "testB")
FPS, SAMPLE_RATE = 25.0, 16_000.0


def rows(root: Path) -> Iterator[Row]:
    """One row per clip of lists or folders, with the split's folder and the path as id; raises ManifestError without a
    list."""
    present = files(root)
    listed = [row for split in PARTS for row in _listed(root, split)]
    if not listed:
        raise ManifestError(
            f"avdeepfake1m:{root} has no train_metadata.json, val_metadata.json or test_files.txt with clips"
        )
    yield from joined(root, _placed(listed, present), present, _unlisted, where="its metadata")


def _listed(root: Path, split: str) -> Iterator[Row]:
    said: set[str] = set()  # from the list; a clip's own JSON is opened only if the list lacks a field
    if (path := root / f"{split}_metadata.json").is_file():
        for entry in document(path, list):
            row = _row(entry, split)
            said.add(row.path)
            yield row
    folder, names = root / f"{split}_metadata", root / f"{split}_files.txt"
    own = sorted(folder.rglob("*.json")) if folder.is_dir() else []
    for path in own:
        if f"{split}/{_media(folder, path)}" not in said:
            yield _row({"file": _media(folder, path), **document(path, dict)}, split)
    if not said and not own and names.is_file():
        for line in names.read_text(encoding="utf-8").split("\n"):
            if name := line.strip():
                yield _row({"file": name}, split)


def _media(folder: Path, path: Path) -> str:
    return path.relative_to(folder).with_suffix(".mp4").as_posix()


def _placed(listed: Iterable[Row], present: Iterable[str]) -> Iterator[Row]:
    """Rows with the actual path of the file: SPLIT/FILE, FILE, or the one file whose path ends with it."""
    there = set(present)
    ends: dict[str, list[str]] = {}
    for path in there:
        ends.setdefault("/".join(path.split("/")[-3:]), []).append(path)
    for row in listed:
        file = row.path.partition("/")[2]
        moved = [path for path in ends.get("/".join(file.split("/")[-3:]), ()) if path.endswith(f"/{file}")]
        found = next((path for path in (row.path, file, *sorted(moved)) if path in there), row.path)
        several = len({found, *moved}) > 1
        row = replace(row, path=found)
        yield fault(row, "found_twice", f"{file} is in several places; {found} is used") if several else row


def _row(entry: Mapping[str, Any], split: str) -> Row:
    file = file_of(entry)
    path = file if file.startswith(f"{split}/") else f"{split}/{file}"
    kind = str(entry.get("modify_type", "")).replace("-", "_")
    video, audio = TYPES.get(kind, (-1, -1))
    models = [str(entry[name]) for name in ("video_model", "audio_model") if entry.get(name)]
    row = Row(
        path,
        label=max(video, audio),
        audio_fake=audio,
        video_fake=video,
        method=("+".join(models) or kind) if max(video, audio) == 1 else "",
        identities=tuple(dict.fromkeys([*_people(path), *_people(str(entry.get("original") or ""))])),
        split="test" if split.startswith("test") else split,
        id=path,
        listed_frames=number(entry, "video_frames"),
        listed_fps=FPS if "video_frames" in entry else None,
        listed_samples=number(entry, "audio_frames"),
        listed_sample_rate=SAMPLE_RATE if "audio_frames" in entry else None,
    )
    if kind and kind not in TYPES:
        row = fault(row, "label_unknown", f'{path} has the unknown modify_type "{entry["modify_type"]}"')
    either = entry.get("fake_segments") or []
    if kind == "real" and either:
        row = fault(row, "label_conflict", f"{path} is listed as real with {len(either)} forged parts")
    seconds = row.listed_frames / FPS if row.listed_frames else None
    for name, forged, own in (
        ("audio_segments", audio, entry.get("audio_fake_segments")),
        ("video_segments", video, entry.get("visual_fake_segments")),
    ):
        if forged == 1:
            row = segments(row, name, either if own is None else own, seconds)
            if not getattr(row, name):
                row = fault(
                    row, "no_segments", f"{path} is {kind}, but its list has no part of the {name[:5]} that is forged"
                )
    return lengths(row)


def _people(path: str) -> list[str]:
    """Speaker of a path: VoxCeleb2's idNNNNN, LRS3's folder, a silent video's subject."""
    if match := re.search(r"(?:^|/)lrs3/([^/]+)/", path):
        return [f"lrs3/{match[1]}"]
    return re.findall(r"(?:^|/)(id\d{5}|subject_\d+)(?=[/_])", path)[:1]


def _unlisted(path: str) -> Row:
    split = path.split("/")[0]
    return Row(path, split=split if split in SPLITS else "", identities=tuple(_people(path)))
