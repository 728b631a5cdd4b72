"""FakeAVCeleb (Khalid et al. 2021, arXiv 2108.05080): the v1.2 tree with meta_data.csv, and trees with the names of v1.0.

ROOT is the release's folder, its parent, or the inner one if it is doubled. In meta_data.csv `path` is the file's name
and a column without a name its folder, which begins with `FakeAVCeleb/` whatever the root is called. Lists in which
these were renamed to `filename` and `path` are read too. Race folders are compared by their letters only, so that
`Asian (East)`, `Asian_East` and `Asian-East` are equal; ids have the names of v1.2. The folder gives the category, the
list gives method and people; there is no split. Faults: those of `pipelines.corpora.join`, `label_conflict` (list
against folder), `method_unknown` (a v1.2 file without a line whose name does not show it).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from pipelines.corpora.fields import ManifestError
from pipelines.corpora.join import again, fault, files, joined, table
from pipelines.corpora.manifest import VIDEO_SUFFIXES, Row

TREE = {  # folder of v1.2: (picture forged, sound forged)
    "RealVideo-RealAudio": (0, 0),
    "RealVideo-FakeAudio": (0, 1),
    "FakeVideo-RealAudio": (1, 0),
    "FakeVideo-FakeAudio": (1, 1),
}
OLD = {  # folder of v1.0: (picture forged, sound forged, the method's name in v1.2)
    "REAL_A": (0, 0, ""),
    "FAKE_RTVC_B": (0, 1, "rtvc"),
    "FAKE_FACESWAP_C": (1, 0, "faceswap"),
    "FAKE_FSGAN_C": (1, 0, "fsgan"),
    "FAKE_W2L_C": (1, 0, "wav2lip"),
    "FAKE_FACESWAP_D_W2L": (1, 1, "faceswap-wav2lip"),
    "FAKE_FSGAN_D_W2L": (1, 1, "fsgan-wav2lip"),
    "org_FAKE_W2L_D": (1, 1, "wav2lip"),
}
CATEGORIES = {"A": (0, 0), "B": (0, 1), "C": (1, 0), "D": (1, 1)}
RACES = ("African", "Asian (East)", "Asian (South)", "Caucasian (American)", "Caucasian (European)")
IDENTITY = re.compile(r"(?:^|[_/-])(id\d{5})(?=[_/.-]|$)")
EMPTY = ("", "-")


def rows(root: Path) -> Iterator[Row]:
    """One row per clip in the list or in the tree; identities are the source and all targets.

    Raises ManifestError if no folder of a category is found or meta_data.csv has no column with file names.
    """
    base = _base(root)
    for row in _rows(root, base):
        yield replace(row, path=str(base / row.path))


def _rows(root: Path, base: Path) -> Iterator[Row]:
    """The same with paths relative to `base`, the folder of the categories."""
    present = [path for path in files(base) if path.split("/")[0] in TREE or path.split("/")[0] in OLD]
    lists = [folder / "meta_data.csv" for folder in (base, root, base.parent) if (folder / "meta_data.csv").is_file()]
    if not lists:
        first: dict[str, str] = {}
        for path in present:
            other = first.setdefault(_key(path), path)
            yield _of_file(path) if other == path else again(_of_file(path), path, other)
        return
    yield from joined(base, _listed(lists[0]), present, _of_file, _key, "meta_data.csv")


def _base(root: Path) -> Path:
    """The folder with the categories' folders: root or one at most three levels below, the highest first."""
    folders = [root]
    for _ in range(4):
        for folder in folders:
            if any((folder / name).is_dir() for name in (*TREE, *OLD)):
                return folder
        folders = sorted(path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_dir())
    raise ManifestError(
        f"fakeavceleb:{root} has no folder RealVideo-RealAudio or REAL_A, nor do folders in it; check the path"
    )


def _key(path: str) -> str:
    """The key shared by list and disk: the path with race and gender reduced to letters."""
    top, *between, name = path.split("/")
    return "/".join((top, *(_letters(part) for part in between[:2]), *between[2:], name))


def _letters(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


def _canonical(path: str) -> str:
    """The path with the race folders as published in v1.2."""
    top, *between, name = path.split("/")
    if top in TREE and between:
        race = {_letters(known): known for known in RACES}.get(_letters(between[0]), between[0])
        between = [race, *(part.lower() for part in between[1:2]), *between[2:]]
    return "/".join((top, *between, name))


def _listed(path: Path) -> Iterator[Row]:
    """Rows of meta_data.csv; paths are relative to the folder of the categories."""
    for number, line in enumerate(table(path), start=2):
        name = next((line[c] for c in ("filename", "path", "") if _is_clip(line.get(c, ""))), "")
        folder = next((v for c in ("", "Unnamed: 9", "path", "folder") if (v := line.get(c, "")) and v != name), "")
        if not name:
            raise ManifestError(f"{path} line {number} names no video in column path or filename; fetch the list again")
        parts = PurePosixPath(name if "/" in name else f"{folder}/{name}").parts
        start = next((i for i, part in enumerate(parts) if part in TREE or part in OLD), 0)
        row = _of_file("/".join(parts[start:]))
        people = [line.get(column, "") for column in ("source", "target1", "target2")]
        identities = tuple(dict.fromkeys((*(x for x in people if x not in EMPTY), *row.identities)))
        method = line.get("method", "")
        method = "" if method in ("real", "-") else method
        faults = tuple(known for known in row.faults if known.kind != "method_unknown")
        row = Row(**{**vars(row), "identities": identities, "method": method, "faults": faults})
        listed = CATEGORIES.get(line.get("category", ""))
        if listed is not None and listed != (row.video_fake, row.audio_fake):
            row = fault(
                row, "label_conflict", f"{row.path} is category {line['category']} in its list, not in its folder"
            )
        if bool(method) != bool(row.label):
            row = fault(row, "label_conflict", f'{row.path} has the method "{line.get("method", "")}" in its list')
        yield row


def _is_clip(text: str) -> bool:
    return os.path.splitext(text)[1].lower() in VIDEO_SUFFIXES


def _of_file(path: str) -> Row:
    """Labels, method and people from a file's folder and name."""
    top, name = path.split("/")[0], path.rpartition("/")[2]
    identities = tuple(dict.fromkeys(IDENTITY.findall(path)))
    if top in OLD:
        video, audio, method = OLD[top]
    else:
        video, audio = TREE.get(top, (-1, -1))
        swapped, synced = "faceswap" in name, "wavtolip" in name
        method = "-".join(["faceswap"] * swapped + ["wav2lip"] * synced)
        if (video, audio) == (0, 1):
            method = "rtvc"
        elif (video, audio) == (0, 0):
            method = ""
    label = max(video, audio)
    row = Row(path, "", label, audio, video, method, identities=identities, id=_canonical(path))
    if label and not method:
        row = fault(row, "method_unknown", f"neither folder nor name of {path} shows how it was made")
    return row
