"""Splits of clips that were made elsewhere: by a protocol, or a file of id, split, weight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from concord.text import counted
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import SPLITS, Row
from store import StoreError
from store.formats import splits
from store.place import Place


@dataclass(frozen=True)
class Splits:
    """The split of each clip by id, the number of clips without one by reason, and notes."""

    of: dict[str, str]
    left_out: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()

    def rows(self, rows: Iterable[Row]) -> list[Row]:
        """The rows that have a split, with the split set, by id."""
        mine = (replace(row, split=self.of[row.id]) for row in rows if row.id in self.of)
        return sorted(mine, key=lambda row: row.id)


@dataclass(frozen=True)
class Rule:
    """What decides on splits, by its name in messages, such as "--protocol speakers"; `make` takes the rows of all clips."""

    name: str
    make: Callable[[Sequence[Row]], Splits]


def of_file(file: Place, rows: Sequence[Row]) -> Splits:
    """The splits of a file as `python -m pipelines.manifest -o` writes it (CSV or Parquet: id, split, weight).

    An empty split is train; a clip that is not listed has none. Raises ManifestError if it cannot be read, or lists no
    clip of `rows`.
    """
    try:
        listed = splits.read(file.read(), str(file), len(rows))
    except FileNotFoundError:
        raise ManifestError(
            f"{file} does not exist; python -m pipelines.manifest --protocol NAME -o FILE makes one"
        ) from None
    except (OSError, ValueError, StoreError) as error:
        raise ManifestError(str(error)) from error
    for clip, (split, _) in listed.items():
        if split not in SPLITS:
            raise ManifestError(
                f"{file}: clip {clip} has split {split[:40]!a}; use {', '.join(SPLITS)} or leave it empty"
            )
    of = {row.id: listed[row.id][0] for row in rows if row.id in listed}
    if rows and not of:
        raise ManifestError(
            f"{file} lists no clip of these corpora: its ids are like {next(iter(listed), '(none)')}, they have {rows[0].id}: "
            "make it from the same --corpus and --name"
        )
    more = len(listed) - len(of)
    notes = (f"{file} also lists {counted(more, 'clip')} not found here",) if more else ()
    return Splits(of, Counter({"not listed": len(rows) - len(of)}) if len(of) < len(rows) else Counter(), notes)
