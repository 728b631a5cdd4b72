"""PolyGlotFake (Hou et al. 2024, arXiv 2405.08838): original_content/LANG/videos, manipulated_content/to_LANG/videos; no split.

Fakes have cloned speech and matching re-animated lips: es_1_to_ru_Xtts.mp4 is clip es_1 translated to Russian by Xtts.
Each language has a JSON list. All clips of one original form one group; people are not published.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pipelines.corpora.fields import ManifestError
from pipelines.corpora.join import document, file_of, files, joined
from pipelines.corpora.manifest import Row

TOPS = {"original_content": 0, "manipulated_content": 1}
NAME = re.compile(r"(?P<source>.+?)_to_[^_]+_(?P<method>.+)")


def rows(root: Path) -> Iterator[Row]:
    """One row per clip of lists or folders; raises ManifestError if there is neither folder."""
    if not any((root / top).is_dir() for top in TOPS):
        raise ManifestError(f"polyglotfake:{root} has neither {' nor '.join(TOPS)}; name the folder that holds them")
    present = [path for path in files(root) if path.split("/")[0] in TOPS]
    yield from joined(root, _listed(root), present, _row, where="its language's list")


def _listed(root: Path) -> Iterator[Row]:
    for top in TOPS:
        for path in sorted((root / top).rglob("*.json")):
            videos = document(path, dict).get("videos")
            if not isinstance(videos, list):
                raise ManifestError(f"list {path} has no array videos; fetch it again")
            for entry in videos:
                name = file_of(entry, "filename")
                name = name if name.endswith(".mp4") else f"{name}.mp4"
                yield _row(f"{path.parent.relative_to(root).as_posix()}/videos/{name}")


def _row(path: str) -> Row:
    fake, stem = TOPS[path.split("/")[0]], Path(path).stem
    match = NAME.fullmatch(stem) if fake else None
    method = (match["method"] if match else "unknown") if fake else ""
    return Row(path, "", fake, fake, fake, method, group=match["source"] if match else stem)
