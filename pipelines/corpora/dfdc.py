"""DFDC (Dolhansky et al. 2020, arXiv 2006.07397): folders dfdc_train_part_N, each with metadata.json; any depth below ROOT.

The label is for the whole clip: whether picture, sound or both are forged is not marked, so both are -1 in fakes (fault
`modality_unmarked`). Clips of one original form one group; these lists do not name people.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.corpora.fields import ManifestError
from pipelines.corpora.join import document, fault, files, joined
from pipelines.corpora.manifest import SPLITS, Row

LABELS = {"REAL": 0, "FAKE": 1}


def rows(root: Path) -> Iterator[Row]:
    """One row per clip of lists or folders; raises ManifestError if no folder has a metadata.json."""
    lists = sorted(root.rglob("metadata.json"))
    if not lists:
        raise ManifestError(f"dfdc:{root} has no metadata.json in any folder; fetch those of the parts")
    entries = (
        _row((path.parent.relative_to(root) / name).as_posix(), entry)
        for path in lists
        for name, entry in document(path, dict).items()
    )
    yield from joined(root, entries, files(root), where="metadata.json")


def _row(path: str, entry: Any) -> Row:
    entry = entry if isinstance(entry, Mapping) else {}
    label = LABELS.get(str(entry.get("label", "")).upper(), -1)
    split, original = str(entry.get("split") or ""), str(entry.get("original") or Path(path).name)
    row = Row(
        path, label=label, group=original, split=split if split in SPLITS else "", method="dfdc" if label == 1 else ""
    )
    if label == 1:
        return fault(
            row, "modality_unmarked", f"{path} is fake, but the list does not say whether in picture, sound or both"
        )
    return row if label == 0 else fault(row, "label_unknown", f"{path} is neither REAL nor FAKE in its list")
