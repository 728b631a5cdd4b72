"""GRID (Cooke et al. 2006, JASA 120(5)): real clips of one speaker in root/clips/NAME.*, word times in
root/align/NAME.align; or several speakers, each such a folder: root/SPEAKER/clips/NAME.*.

In the published package (Zenodo record 3625687) the folders of `alignments/` are named after the wrong speakers from s5 on:
`published_folder` says which one belongs to a speaker. A file name encodes its sentence, so `words` refuses times of
another sentence.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import VIDEO_SUFFIXES, Row, reads_urls
from store.place import Place, place

ALIGN_RATE = 25_000  # time units per second in .align files: samples of GRID's clean sound
# The folder of the published alignments for each speaker, where it differs from the speaker's name. Source: the table
# `speaker_fix_map` of lhotse's recipe (lhotse-speech/lhotse, lhotse/recipes/grid.py, commit 0f54746), inverted.
MISPLACED = dict(
    pair.split(":")
    for pair in (
        "s5:s6 s6:s5 s10:s11 s11:s12 s12:s13 s13:s10 s14:s15 s15:s14 s18:s19 s19:s18 s21:s20 s22:s23 s23:s22 s26:s27 s27:s26 "
        "s28:s29 s29:s28 s32:s33 s33:s32"
    ).split()
)
GRAMMAR = (  # meaning of each letter of a name, in the sentence's order (Cooke et al., table I); the fourth is the letter
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},
    dict(zip("z123456789", "zero one two three four five six seven eight nine".split(), strict=True)),
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)


@dataclass(frozen=True)
class Word:
    """A spoken word and its time in seconds from the start of the clip."""

    start_s: float
    end_s: float
    text: str


@reads_urls
def rows(root: Path | Place) -> Iterator[Row]:
    """One real row per clip, sorted by speaker and name; the name of the folder with `clips` is the speaker."""
    here = place(root)
    if names := (here / "clips").names():
        yield from _speaker(root.name, "clips", names)
        return
    several = {name: (here / name / "clips").names() for name in here.names() if not name.startswith(".")}
    if not any(several.values()):
        raise ManifestError(
            f"grid:{root} has no folder clips; a GRID root holds clips/NAME.mp4 and align/NAME.align, or a folder with them "
            "for each speaker"
        )
    for speaker, names in several.items():
        yield from _speaker(speaker, f"{speaker}/clips", names)


def _speaker(name: str, folder: str, files: Iterable[str]) -> Iterator[Row]:
    for file in files:
        if PurePosixPath(file).suffix.lower() in VIDEO_SUFFIXES and not file.startswith("."):
            yield Row(f"{folder}/{file}", label=0, identities=(name,))


def words(path: Path | Place) -> list[Word]:
    """Words of an .align file without the silences (`sil`, `sp`); times are accurate to one or two frames.

    Raises ManifestError if the file's name encodes another sentence.
    """
    found = []
    for line in place(path).read().decode().splitlines():
        if line.strip():
            start, end, text = line.split()
            if text not in ("sil", "sp"):
                found.append(Word(int(start) / ALIGN_RATE, int(end) / ALIGN_RATE, text))
    wanted, said = sentence(PurePosixPath(str(path)).stem), " ".join(word.text for word in found)
    if wanted and said != wanted:
        raise ManifestError(
            f'{path} holds the times of "{said}", but its name encodes "{wanted}"; in the published package the folders of '
            "alignments are named after the wrong speakers (see pipelines/corpora/grid.py)"
        )
    return found


def sentence(name: str) -> str:
    """The sentence that a clip's name encodes: bbaf2n is "bin blue at f two now"; "" for a name that is not GRID's."""
    said = [said_by.get(letter, "") for said_by, letter in zip(GRAMMAR, name, strict=False)]
    return " ".join(said) if len(name) == len(GRAMMAR) and all(said) else ""


def published_folder(speaker: str) -> str:
    """The folder of the published `alignments/` with the word times of a speaker such as s6.

    Raises ManifestError for s20, whose times are not in the package: its folder s20 holds those of s21.
    """
    if speaker == "s20":
        raise ManifestError("the published alignments have no word times of speaker s20")
    return MISPLACED.get(speaker, speaker)
