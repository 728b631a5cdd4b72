"""The outcome of each input: one row for each clip, in `ledger.parquet` beside the store's zarr.json, written
atomically."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace

from concord.secrets import redact
from concord.text import spelled
from store.formats.table import read_parquet
from store.layout import StoreError
from store.place import Place, place

FILE = "ledger.parquet"
TYPES = {"attempts": "int32", "seconds": "float32"}
LATER = ("notes",)  # columns that older ledgers lack


@dataclass(frozen=True)
class Entry:
    """The outcome of one input. `stage` is where it ended ("done", or probe, decode, face, asr, vsr, slot), `reason` is
    one of `pipelines.reasons.REASONS` (empty when the clip is done), `message` one sentence for the user."""

    id: str
    path: str
    stage: str
    reason: str = ""
    message: str = ""
    attempts: int = 1
    seconds: float = 0.0  # of work on this clip, in all stages
    worker: str = ""
    notes: str = ""  # facts of a clip that can be used (`pipelines.media.facts`), as sentences


def read(store: str | os.PathLike[str] | Place) -> dict[str, Entry]:
    """Entries by clip id, empty if the store has no ledger yet. Raises StoreError if it is damaged."""
    try:
        data = (place(store) / FILE).read()
    except FileNotFoundError:
        return {}
    try:
        records, names = read_parquet(data).to_dict("records"), [f.name for f in fields(Entry)]
        return {
            record["id"]: Entry(**{n: record[n] for n in names if n in record or n not in LATER}) for record in records
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise StoreError(
            f"{place(store) / FILE} is damaged ({why}); run precompute.py on the store again to repair it"
        ) from error


def write(store: str | os.PathLike[str] | Place, entries: Iterable[Entry]) -> None:
    """Replace the ledger with these entries, in this order."""
    import pandas as pd

    names = [f.name for f in fields(Entry)]
    told = [asdict(replace(entry, message=redact(entry.message))) for entry in entries]
    records = [{name: spelled(value) if isinstance(value, str) else value for name, value in t.items()} for t in told]
    table = pd.DataFrame(records, columns=names)
    table = table.astype({name: TYPES.get(name, "str") for name in names})
    (place(store) / FILE).write(table.to_parquet(index=False, write_page_checksum=True))
