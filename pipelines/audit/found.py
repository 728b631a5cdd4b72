"""An audit: the search for leaks, shortcuts and faults in what is known about clips, with one record as its result.

`of_lists`, `of_media` and `of_store` collect what is known, `audit` analyses it. The record has the fields of
`audit.json` (docs/audit.md); pages and terminal lines are made from it.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import store
from pipelines.audit import coverage, fingerprint, leaks, measure, nuisances, shortcuts, stored
from pipelines.audit.coverage import Checked
from pipelines.audit.leaks import Leak
from pipelines.audit.shortcuts import ALLOW, Shortcut
from pipelines.corpora import faults
from pipelines.corpora.faults import ClipFault, FaultKind
from pipelines.corpora.fields import LABELS
from pipelines.corpora.manifest import Row
from pipelines.ui import progress
from store import seen
from store.seen import Seen

if TYPE_CHECKING:
    import pandas as pd

AUDIT, NUISANCES = "audit.json", "nuisances.parquet"  # files of an audit in a store's root
COUNTED = ("corpus", "split", "label", "method", "category")


@dataclass(frozen=True)
class Known:
    """Data on the clips besides their rows: a table of numbers, content fingerprints, file hashes, faults, and soft
    labels by method, counted in `stored.BINS` bins; of a store with a fit, what that has seen of each split."""

    table: pd.DataFrame
    prints: Sequence[fingerprint.Print | None] | None = None
    files: Sequence[str | None] | None = None
    faults: Sequence[ClipFault] = ()
    soft_labels: Mapping[str, Sequence[int]] | None = None
    fit_seen: Mapping[str, Seen] | None = None


@dataclass(frozen=True)
class Found:
    """The result of an audit: numbers of clips, shortcuts (worst first), what was checked and on how many clips, leaks,
    faults.

    allow: the AUC above which a shortcut is a finding. soft_labels: only for a store, else None. fit_seen: by split, only
    for a store with a fit.
    """

    rows: int
    distinct: int
    counts: Mapping[str, Mapping[str, int]]
    shortcuts: Sequence[Shortcut]
    checked: Mapping[str, Checked]
    leaks: Sequence[Leak]
    faults: Sequence[FaultKind]
    allow: float = ALLOW
    soft_labels: Mapping[str, Sequence[int]] | None = None
    fit_seen: Mapping[str, Seen] | None = None
    opened: bool = False  # media files, or a store's data on them

    @property
    def taught(self) -> dict[str, Seen]:
        """Splits other than train of which the store's fit has seen clips."""
        return {name: one for name, one in (self.fit_seen or {}).items() if name != "train" and one.clips}

    @property
    def above(self) -> list[Shortcut]:
        """Shortcuts that are findings, worst first."""
        return sorted((s for s in self.shortcuts if s.above(self.allow)), key=lambda s: -s.auc)

    @property
    def findings(self) -> list[str]:
        """A sentence for each leak, each split that the fit has seen, and each shortcut above `allow`."""
        taught = [f"{name}: {one.text()}" for name, one in self.taught.items()]
        return [leak.text() for leak in self.leaks] + taught + [s.text() for s in self.above]

    def to_json(self) -> dict[str, Any]:
        """The content of audit.json; scripts rely on its layout."""
        found: dict[str, Any] = {
            "rows": self.rows,
            "distinct": self.distinct,
            "counts": self.counts,
            "shortcuts": [s.to_json(self.allow) for s in self.shortcuts],
            "checked": {kind: one.to_json() for kind, one in self.checked.items()},
            "leaks": [leak.to_json() for leak in self.leaks],
            "faults": [kind.to_json() for kind in self.faults],
            "allow": self.allow,
            "findings": self.findings,
        }
        if self.soft_labels is not None:
            found["soft_labels"] = {"bins": stored.BINS, "methods": dict(self.soft_labels)}
        if self.fit_seen is not None:
            found["fit_seen"] = {name: one.to_json() for name, one in self.fit_seen.items()}
        return found


def of_lists(rows: Sequence[Row]) -> Known:
    """Data from the corpus's own lists."""
    return Known(nuisances.listed(rows))


def of_media(rows: Sequence[Row], options: Mapping[str, str] | None = None, workers: int | None = None) -> Known:
    """Data from decoding the media files on this machine or in buckets; `options` are for buckets."""
    found = []
    with progress.shown(progress.Pass("media", len(rows), unit="clips")) as show:
        for one in measure.run(rows, workers, options):
            found.append(one)
            show.advance(1)
    return Known(
        _filled(measure.table(found), nuisances.listed(rows)),
        [one.print for one in found],
        leaks.hashes(rows),
        [fault for one in found for fault in one.faults],
    )


def of_store(rows: Sequence[Row], reader: store.Reader) -> Known:
    """A store's data on its clips; `rows` are those of `stored.rows`."""
    found = stored.from_store(reader)
    table = _filled(found.table, nuisances.listed(rows))
    fit_seen = seen.by_split(reader) if reader.fit is not None else None
    return Known(table, found.prints, None, found.faults, found.soft_labels, fit_seen)


def _filled(table: pd.DataFrame, listed: pd.DataFrame) -> pd.DataFrame:
    """The table, with the list's columns in place of those that are entirely unknown; no column mixes measured and
    listed values."""
    known = [name for name in listed if listed[name].notna().any()]
    return table.assign(**{name: listed[name] for name in known if name not in table or table[name].isna().all()})


def audit(rows: Sequence[Row], known: Known | None = None, allow: float = ALLOW, seed: int = 0) -> Found:
    """Everything found about `rows`; `known` defaults to the data from their lists."""
    known = known or of_lists(rows)
    keys = leaks.file_keys(rows, known.files)
    prints = fingerprint.keys(known.prints, [row.label for row in rows]) if known.prints is not None else None
    noted = faults.of_rows(rows)
    missing = {(fault.kind, fault.id) for fault in noted if fault.kind in faults.MISSING}  # the media would repeat them
    return Found(
        rows=len(rows),
        distinct=len({(row.corpus, key) for row, key in zip(rows, keys, strict=True)}),
        counts=counts(rows),
        shortcuts=shortcuts.find(rows, known.table, seed=seed),
        checked=coverage.checked(rows, prints, known.files),
        leaks=leaks.find(rows, prints=prints, files=known.files),
        faults=faults.summary([*noted, *(f for f in known.faults if (f.kind, f.id) not in missing)]),
        allow=allow,
        soft_labels=known.soft_labels,
        fit_seen=known.fit_seen,
        opened=known.prints is not None,
    )


def counts(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Clips by corpus, split, label, method and category, and by split and label as "split/label"; "" if none is
    named."""
    table: dict[str, dict[str, int]] = {}
    for name in COUNTED:
        values = (LABELS[row.label] if name == "label" else getattr(row, name) for row in rows)
        table[name] = dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))
    both = Counter(f"{row.split or 'no split'}/{LABELS[row.label]}" for row in rows)
    table["split_label"] = dict(sorted(both.items()))
    return table


def keep(reader: store.Reader, found: Found, table: pd.DataFrame) -> str:
    """Write the result and the table of numbers to the store's root. Returns "", or the reason why that failed."""
    ids = [str(name) for name in reader.clips["id"]]
    data = io.BytesIO()
    table.assign(id=ids)[["id", *table.columns]].to_parquet(data, index=False)
    told = {**found.to_json(), "clips": len(reader)}
    try:
        (reader.place / NUISANCES).write(data.getvalue())
        (reader.place / AUDIT).write((json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode())
    except (OSError, store.StoreError) as error:
        return f"{reader.place} cannot be written ({error}), so {AUDIT} and {NUISANCES} were not written to it"
    return ""
