"""FaceForensics++ (Roessler et al. 2019): {original,manipulated}_sequences/NAME/COMPRESSION/videos/, without sound.

Separately fetched sound belongs in NAME.wav next to a clip. Identities are the numbers in names (000, 000_003; actors
of DeepFakeDetection 01__..., 01_02__...). Splits come from splits/{train,val,test}.json or the same files in ROOT, if
present.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from pipelines.corpora.fields import ManifestError
from pipelines.corpora.join import document, fault, files
from pipelines.corpora.manifest import SPLITS, Row

TOPS = {"original_sequences": 0, "manipulated_sequences": 1}


def rows(root: Path) -> Iterator[Row]:
    """One row per video and compression; fault `no_audio` without a .wav next to it. Raises ManifestError for another
    tree."""
    if not any((root / top).is_dir() for top in TOPS):
        raise ManifestError(f"faceforensics:{root} has neither {' nor '.join(TOPS)}; name the folder that holds them")
    splits = _splits(root)
    for path in files(root):
        top, *folders, name = path.split("/")
        if top not in TOPS:
            continue
        stem, fake = Path(name).stem, TOPS[top]
        source = folders[0] if folders else ""
        numbers = re.findall(r"\d{2,3}", stem.split("__")[0])
        people = tuple(f"actor {number}" if "__" in stem else number for number in numbers)
        found = {splits.get(number, "") for number in numbers}
        split = found.pop() if len(found) == 1 else ""
        sound = str(Path(path).with_suffix(".wav"))
        has = (root / sound).is_file()
        row = Row(path, sound if has else "", fake, -1, fake, source if fake else "", identities=people, split=split)
        yield (
            row
            if has
            else fault(row, "no_audio", f"{path} is published without sound, and there is no {Path(sound).name}")
        )


def _splits(root: Path) -> dict[str, str]:
    """Split by number; the lists have pairs of numbers that were swapped with each other."""
    found = {}
    for split in SPLITS:
        path = next((p for p in (root / "splits" / f"{split}.json", root / f"{split}.json") if p.is_file()), None)
        for pair in document(path, list) if path else ():
            found.update(dict.fromkeys(map(str, pair), split))
    return found
