"""VoxCeleb2 (Chung et al. 2018, arXiv 1806.05622): {dev,test}/mp4/SPEAKER/VIDEO/CLIP.mp4, sound in aac/.../CLIP.m4a; all real.

Where a clip's sound lies in a second file (`aac` or `wav` in place of `mp4`) that file is named; sound without its picture is
the fault `missing_media`, since pictures are what is hard to get.
"""

from collections.abc import Iterator
from pathlib import Path

from pipelines.corpora.join import fault, files
from pipelines.corpora.manifest import Row

SPLITS = {"dev": "train", "test": "test"}
SOUND = {"aac": ".m4a", "wav": ".wav"}


def rows(root: Path) -> Iterator[Row]:
    """One row for every clip of which there is picture or sound, in the order of their names."""
    sounds: dict[str, str] = {}
    for path in files(root, SOUND.values()):
        folder = next((f"/{name}/" for name in SOUND if f"/{name}/" in f"/{path}"), "")
        if folder:
            picture = f"/{path}".replace(folder, "/mp4/", 1)[1:]
            sounds.setdefault(picture.rpartition(".")[0] + ".mp4", path)
    pictures = set(files(root, [".mp4"]))
    for path in sorted(pictures | sounds.keys()):
        parts = path.split("/")
        split = next((SPLITS[part] for part in parts if part in SPLITS), "")
        row = Row(path, sounds.get(path, ""), label=0, split=split, identities=tuple(parts[-3:-2]))
        yield (
            row
            if path in pictures
            else fault(row, "missing_media", f"{sounds[path]} is there without its picture {path}")
        )
