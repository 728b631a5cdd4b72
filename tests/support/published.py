"""Manifest rows of the CMDFD authors' published lists, read without an adapter, for tests of what the lists hold."""

import csv
import re
from pathlib import Path

from pipelines.corpora.manifest import Row, with_groups


def _rows(file: Path, method: str, split: str, corpus: str) -> list[Row]:
    rows = []
    with file.open(newline="") as lines:
        for line in csv.DictReader(lines):
            fake, path = int(line["ENtire_Label"]), line["Video_Path"]
            people = re.findall(r"id\d{5}", path.partition("/ARRANGED_RAW_VIDEO/")[2] or line["ID_Name"])
            rows.append(
                Row(
                    path,
                    audio_path=line["Audio_Path"],
                    label=fake,
                    method=method if fake else "",
                    identities=tuple(dict.fromkeys(people)),
                    split=split,
                    id=f"{corpus}/{file.stem}/{path}",
                    corpus=corpus,
                    listed_frames=float(line["Frame_Len"]),
                    listed_fps=float(line["FPS"]),
                    listed_samples=float(line["Audio_Len"]),
                    listed_sample_rate=float(line["AudioSamRate"]),
                )
            )
    return rows


def _folder(shared: Path) -> list[Path]:
    return sorted((shared / "data" / "cmdfd_lists" / "csvfile").glob("*.csv"))


def cmdfd(shared: Path) -> list[Row]:
    """The eight CMDFD lists, reals once."""
    rows: dict[str, Row] = {}
    for file in _folder(shared):
        if not file.stem.startswith("FAV_"):
            rows |= {row.path: row for row in _rows(file, file.stem, "", "cmdfd") if row.path not in rows}
    return with_groups(list(rows.values()))


def favc(shared: Path) -> list[Row]:
    """The FakeAVCeleb lists, a row a (list, clip); FAV_test repeats its parts and names no method."""
    rows: list[Row] = []
    for file in _folder(shared):
        if file.stem.startswith("FAV_t") and file.stem != "FAV_test":
            split, _, method = file.stem.removeprefix("FAV_").partition("_")
            rows += _rows(file, method, split, "cmdfd_favc")
        elif file.stem == "FAV_test":
            rows += _rows(file, "", "test", "cmdfd_favc")
    return with_groups(rows)
