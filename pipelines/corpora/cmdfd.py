"""The lists that the authors of CMDFD publish (Yu et al. 2024, arXiv 2404.19171): their own corpus and their FakeAVCeleb.

ROOT is the folder with the CSVs or its parent. The media (`origin/`, `MakeItTalk/`, ...) may be in either, with or
without the folder `My_Test`, at the listed paths, or missing: `missing_media` and `missing_sound` are faults of a row,
not errors. So is `no_video_listed`, a line that names no video. Labels come from ENtire_Label, Audio_Label and Video_Label (1 =
fake). Sync_Label is not used as a label: it is set per list, not measured, and is 1 for most fakes. Audio_Path names
the sound, which for VideoReTalk and Wav2Lip is the real clip of the voice.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from pipelines.corpora.fakeavceleb import OLD
from pipelines.corpora.faults import NO_VIDEO_LISTED
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.join import fault, lengths, number, table
from pipelines.corpora.manifest import Row

log = logging.getLogger(__name__)

LISTS = ("Audio2Head", "MakeItTalk", "VideoReTalk", "W2L")  # each also as NAME_Self, with face and voice of one person
METHODS = {"W2L": "Wav2Lip", "W2L_Self": "Wav2Lip_Self"}
# FakeAVCeleb's folders of v1.0: the method's name in v1.2
PARTS = {folder: method for folder, (_, _, method) in OLD.items()}
COLUMNS = ("Audio_Path", "Video_Path", "ENtire_Label", "Audio_Label", "Video_Label")
IDENTITY = re.compile(r"(?:^|[_/+-])(id\d{5})(?=[_/.+-]|$)")


def rows(root: Path) -> Iterator[Row]:
    """The eight CMDFD lists, one row per clip: the 1,000 reals that every list repeats are read once.

    Methods: Audio2Head, MakeItTalk, VideoReTalk, Wav2Lip, each also with `_Self` (the person's own voice, still a forgery);
    reals have none. Identities: face idA, voice idB. A clip that two lists describe differently keeps the first description
    and the fault `list_conflict`. Raises ManifestError if no list is found or one has other columns.
    """
    folder = _folder(root, "Audio2Head.csv", *(f"{name}.csv" for name in LISTS))
    names = [f"{name}{self}" for name in LISTS for self in ("", "_Self")]
    found: dict[str, Row] = {}
    for name in names:
        if not (folder / f"{name}.csv").is_file():
            log.warning("cmdfd:%s has no list %s.csv", root, name)
            continue
        seen: set[str] = set()
        for row in _list(folder, f"{name}.csv", METHODS.get(name, name), "My_Test"):
            first = found.setdefault(row.id, row)
            if row.id in seen:
                found[row.id] = fault(first, "listed_twice", f"{row.id} has several lines in {name}.csv")
            elif first != row and first.method == row.method:
                found[row.id] = fault(first, "list_conflict", f"{name}.csv contradicts an earlier list on {row.id}")
            seen.add(row.id)
    yield from found.values()


def favc_rows(root: Path) -> Iterator[Row]:
    """Their FakeAVCeleb lists (v1.0 names), one row per list and clip, with the list's name in the id.

    The split is the list's, train or test; the method is the part's, with its name in FakeAVCeleb v1.2. FAV_test.csv
    repeats the eight FAV_test_PART.csv (under another machine's paths), so each test clip has two rows: ids
    `FAV_test/...` and `FAV_test_PART/...`, equal after the first "/". A clip that is in train and test has a row in
    each: this is a fault of the corpus and must stay visible. Identities: the folder's person first, then everyone in
    the file's name.
    """
    folder = _folder(
        root, "FAV_test.csv", *(f"FAV_{split}_{part}.csv" for split in ("test", "train") for part in PARTS)
    )
    for path in sorted(folder.glob("FAV_*.csv")):
        split = path.stem.split("_")[1]
        if split not in ("train", "test"):
            log.warning("cmdfd_favc:%s: %s is neither a train nor a test list and is skipped", root, path.name)
            continue
        seen: dict[str, Row] = {}
        for row in _list(folder, path.name, None, "ARRANGED_RAW_VIDEO"):
            row = Row(**{**vars(row), "split": split, "id": f"{path.stem}/{row.id}"})
            twice = row.id in seen
            seen[row.id] = fault(seen[row.id], "listed_twice", f"{row.id} has several lines") if twice else row
        yield from seen.values()


def _folder(root: Path, *names: str) -> Path:
    """The folder with the lists: root, or the first folder in it that has them."""
    inside = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    for folder in (root, root / "csvfile", *inside):
        if any((folder / name).is_file() for name in names):
            return folder
    raise ManifestError(
        f"{root} has no list such as {names[0]}, and neither has a folder in it; name the folder with the CSVs"
    )


def _list(folder: Path, name: str, method: str | None, below: str) -> Iterator[Row]:
    """Rows of one list; `below` is the folder in its paths after which they no longer depend on a machine."""
    lines = table(folder / name)
    if missing := [column for column in COLUMNS if lines and column not in lines[0]]:
        raise ManifestError(
            f"list {folder / name} has no column {', '.join(missing)}; it is not one of the authors' lists"
        )
    media = _Media(folder)
    for line, values in enumerate(lines, start=2):
        listed = values["Video_Path"]
        if not listed:
            yield _pathless(folder, name, line, values, method or "")
            continue
        tail = _tail(listed, below)
        part = tail.split("/")[0]
        label, audio, video = (_label(values[column]) for column in COLUMNS[2:])
        path, there = media.find(listed, tail, below)
        sound, sound_there = media.find(values["Audio_Path"], _tail(values["Audio_Path"], below), below)
        row = Row(
            path,
            audio_path=sound,
            label=label,
            audio_fake=audio,
            video_fake=video,
            method="" if label == 0 else PARTS.get(part, part) if method is None else method,
            identities=tuple(dict.fromkeys(IDENTITY.findall(tail))),
            id=tail,
            listed_frames=number(values, "Frame_Len"),
            listed_fps=number(values, "FPS"),
            listed_samples=number(values, "Audio_Len"),
            listed_sample_rate=number(values, "AudioSamRate"),
        )
        if not there:
            row = fault(row, "missing_media", f"{listed} is listed, but neither at that path nor below {folder}")
        elif not sound_there:
            row = fault(
                row,
                "missing_sound",
                f"{values['Audio_Path']}, the sound of {tail}, is neither at that path nor below {folder}",
            )
        if None in (row.listed_frames, row.listed_fps, row.listed_samples, row.listed_sample_rate):
            row = fault(row, "numbers_unknown", f"{tail} has no listed length of picture or sound")
        yield lengths(_labels(row))


def _pathless(folder: Path, name: str, line: int, values: Mapping[str, str], method: str) -> Row:
    """The row of a line that names no video: it cannot be processed, and ledger and audit report it."""
    label, audio, video = (_label(values[column]) for column in COLUMNS[2:])
    method = "" if label == 0 else method
    row = Row(f"{folder / name} line {line}", "", label, audio, video, method, id=f"{name}/line {line}")
    return fault(
        row, NO_VIDEO_LISTED, f"line {line} of {name} has no Video_Path; fetch the list again, or drop the line"
    )


class _Media:
    """Finds listed files: at the listed path, or under the lists' folder or its parent. Each folder is read once."""

    def __init__(self, folder: Path):
        self.tops = (folder, folder.parent)
        self.names: dict[str, frozenset[str]] = {}

    def find(self, listed: str, tail: str, below: str) -> tuple[str, bool]:
        """The path of a listed file and whether it exists; the listed path if it does not."""
        places = [f"{top}/{between}{tail}" for top in self.tops for between in ("", f"{below}/")]
        for path in (listed, *places):
            if self._there(path):
                return path, True
        return listed, False

    def _there(self, path: str) -> bool:
        parent, _, name = path.rpartition("/")
        if parent not in self.names:
            try:
                self.names[parent] = frozenset(os.listdir(parent or "."))
            except OSError:  # no such folder, so no files
                self.names[parent] = frozenset()
        return name in self.names[parent]


def _tail(path: str, below: str) -> str:
    """The path after the folder `below`; its last two parts if that folder is not in it."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return "/".join(parts[parts.index(below) + 1 :] if below in parts else parts[-2:])


def _label(text: str) -> int:
    return {"0": 0, "1": 1, "0.0": 0, "1.0": 1}.get(text, -1)


def _labels(row: Row) -> Row:
    if row.label < 0:
        return fault(row, "label_unknown", f"the list says neither 0 nor 1 for {row.id}")
    if row.label != max(row.audio_fake, row.video_fake):
        return fault(
            row,
            "label_conflict",
            f"the list says {row.label} for {row.id}, which contradicts its labels of sound and picture",
        )
    return row
