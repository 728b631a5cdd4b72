"""What became of each input: one row a clip, in `ledger.parquet` beside the store's zarr.json, written atomically."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

FILE = "ledger.parquet"
TYPES = {"attempts": "int32", "seconds": "float32"}


@dataclass(frozen=True)
class Entry:
    """One input's fate. `stage` is where it ended ("done", or probe, decode, face, asr, vsr, slot), `reason` a word for what
    failed (empty when the clip is done), `message` one sentence for a person."""

    id: str
    path: str
    stage: str
    reason: str = ""
    message: str = ""
    attempts: int = 1
    seconds: float = 0.0  # of work on this clip, all stages
    worker: str = ""


def read(store: Path) -> dict[str, Entry]:
    """Entries by clip id, empty where the store has no ledger yet."""
    import pandas as pd

    path = store / FILE
    if not path.exists():
        return {}
    records = pd.read_parquet(path).to_dict("records")
    return {record["id"]: Entry(**{f.name: record[f.name] for f in fields(Entry)}) for record in records}


def write(store: Path, entries: Iterable[Entry]) -> None:
    """Replace the ledger with these entries, in this order."""
    import pandas as pd

    names = [f.name for f in fields(Entry)]
    table = pd.DataFrame([asdict(entry) for entry in entries], columns=names)
    table = table.astype({name: TYPES.get(name, "str") for name in names})
    partial = store / f".{FILE}.partial"
    table.to_parquet(partial, index=False)
    os.replace(partial, store / FILE)
