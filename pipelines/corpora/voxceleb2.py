"""VoxCeleb2 (Chung et al. 2018, arXiv 1806.05622): {dev,test}/mp4/SPEAKER/VIDEO/CLIP.mp4, sound in aac/.../CLIP.m4a; all real.

If a clip's sound is in a second file (`aac` or `wav` instead of `mp4`), that file is named. Sound without its picture
is the fault `missing_media`, because pictures are often missing.
"""

from collections.abc import Iterator
from pathlib import Path

from pipelines.corpora.join import fault, files
from pipelines.corpora.manifest import Row

SPLITS = {"dev": "train", "test": "test"}
SOUND = {"aac": ".m4a", "wav": ".wav"}


def rows(root: Path) -> Iterator[Row]:
    """One row for every clip with picture or sound, sorted by name."""
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
            else fault(row, "missing_media", f"{sounds[path]} exists without its picture {path}")
        )
