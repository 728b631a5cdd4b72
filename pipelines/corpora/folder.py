"""A plain folder of videos: root/real/**, root/fake/METHOD/**, or anything else, which is unlabelled."""

import logging
from collections.abc import Iterator
from pathlib import Path

from pipelines.manifest import VIDEO_SUFFIXES, ManifestError, Row

log = logging.getLogger(__name__)


def rows(root: Path) -> Iterator[Row]:
    """One row for every file with a video suffix below `root`, in the order of their names; hidden files are left out."""
    if not root.is_dir():
        raise ManifestError(f"folder:{root} is not a folder; for a list of clips use csv:{root}")
    other = 0
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        place = path.relative_to(root)
        if any(part.startswith(".") for part in place.parts):
            continue
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            other += 1
            continue
        top = place.parts[0] if len(place.parts) > 1 else ""
        if top == "real":
            yield Row(str(path), label=0)
        elif top == "fake":
            yield Row(str(path), label=1, method=place.parts[1] if len(place.parts) > 2 else "fake")
        else:
            yield Row(str(path))
    if other:
        log.info("folder:%s: %d files without a video suffix left out", root, other)
