"""LRS3 (Afouras et al. 2018): {pretrain,trainval,test}/SPEAKER/CLIP.mp4 with its words in CLIP.txt; all real."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipelines.corpora.join import files, joined
from pipelines.corpora.manifest import Row

SPLITS = {"pretrain": "train", "trainval": "train", "test": "test"}


def rows(root: Path) -> Iterator[Row]:
    """One row for every clip and every text without one: the texts are the corpus's list. Fault `not_listed`: no text."""
    texts = (
        str(PurePosixPath(path).with_suffix(".mp4")) for path in files(root, [".txt"]) if path.split("/")[0] in SPLITS
    )
    yield from joined(root, map(_row, texts), files(root, [".mp4"]), _row, where="the texts")


def _row(path: str) -> Row:
    top, *folders, _ = path.split("/")
    return Row(path, label=0, split=SPLITS.get(top, ""), identities=tuple(folders[-1:]))
