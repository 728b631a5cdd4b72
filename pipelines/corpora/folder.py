"""A plain folder of videos: root/real/**, root/fake/METHOD/**; all other files are unlabelled.

A folder below real/ or fake/METHOD/ is the `group` of its clips: they are of one person or source, which must not be on
two sides of a split. The same name in real/ and fake/METHOD/ is the same group. It names nobody: only a manifest does.
"""

import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from concord.text import counted
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import USUAL, VIDEO_SUFFIXES, Row, reads_urls
from store.place import Place, place

log = logging.getLogger(__name__)


@reads_urls
def rows(root: Path | Place) -> Iterator[Row]:
    """One row for every file of `videos`. A root that is itself real/ or fake/ raises ManifestError: no row would have a
    label."""
    labelled = False
    for path, parts in videos(root):
        top = parts[0] if len(parts) > 1 else ""
        labelled |= top in ("real", "fake")
        if top == "real":
            yield Row(path, label=0, group=parts[1] if len(parts) > 2 else "")
        elif top == "fake":
            method, group = parts[1] if len(parts) > 2 else "fake", parts[2] if len(parts) > 3 else ""
            yield Row(path, label=1, method=method, group=group)
        else:
            yield Row(path)
    if not labelled and (above := _above(root)):
        raise ManifestError(
            f"folder:{root} lies inside a corpus, so that no clip of it would have a label: name the folder that holds real/ "
            f"and fake/, folder:{above}"
        )


def videos(root: str | Path | Place) -> Iterator[tuple[str, list[str]]]:
    """Path and names below `root` of every file with a video suffix, sorted by name; hidden files are skipped, and the number
    of others is logged. Raises ManifestError for a file."""
    folder = place(root)
    if folder.exists():
        raise ManifestError(f"folder:{root} is not a folder; for a list of clips use csv:{root}")
    other = 0
    for key in folder.files():
        parts = key.split("/")
        if any(part.startswith(".") for part in parts):
            continue
        if PurePosixPath(key).suffix.lower() in VIDEO_SUFFIXES:
            yield str(folder / key), parts
        else:
            other += 1
    if other:
        many = counted(other, "file")
        log.warning("folder:%s: %s without a video's suffix (%s ...) skipped", root, many, ", ".join(USUAL))


def _above(root: Path | Place) -> str:
    """Where the corpus begins, if the root's name says that it is ROOT/real, ROOT/fake or ROOT/fake/METHOD; else ""."""
    above, _, name = str(root).rstrip("/").rpartition("/")
    higher, _, kind = above.rpartition("/")
    return above if name in ("real", "fake") else higher if kind == "fake" else ""
