"""GRID (Cooke et al. 2006, JASA 120(5)): one speaker a root, root/clips/NAME.*, word times in root/align/NAME.align; real."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import VIDEO_SUFFIXES, Row, reads_urls
from store.place import Place, place

ALIGN_RATE = 25_000  # units a second of .align files: samples of GRID's clean sound


@dataclass(frozen=True)
class Word:
    """A spoken word and its time in seconds from the start of the clip."""

    start_s: float
    end_s: float
    text: str


@reads_urls
def rows(root: Path | Place) -> Iterator[Row]:
    """One real row a clip, in the order of their names; the root's name stands for the speaker."""
    names = (place(root) / "clips").names()
    if not names:
        raise ManifestError(f"grid:{root} has no folder clips; a GRID root holds clips/NAME.mp4 and align/NAME.align")
    for name in names:
        if PurePosixPath(name).suffix.lower() in VIDEO_SUFFIXES:
            yield Row(f"clips/{name}", label=0, identities=(root.name,))


def words(path: Path | Place) -> list[Word]:
    """Words of an .align file without the silences (`sil`, `sp`); times are good to a frame or two."""
    found = []
    for line in place(path).read().decode().splitlines():
        if line.strip():
            start, end, text = line.split()
            if text not in ("sil", "sp"):
                found.append(Word(int(start) / ALIGN_RATE, int(end) / ALIGN_RATE, text))
    return found
