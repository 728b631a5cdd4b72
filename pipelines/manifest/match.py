"""Matched test sets, in which a nuisance reveals nothing: reals and fakes of each method have the same distribution of
it.

Clips are sorted into cells of the chosen nuisances (a fifth of the reals' standard deviation wide; words and equal
numbers unchanged). Each cell keeps as many reals as fakes, drawn by seed (`pairs`), or all of them, with equal total
weight of reals and fakes (`weights`). Cells are halved until the AUC of every chosen nuisance is within TOLERANCE of
0.5, in the end down to equal values. If no such cells exist nothing is left; this means that the method cannot be
tested fairly.

Numbers that were not chosen are not matched, but reported. Training sets are not changed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.audit import leaks, nuisances
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import PARQUET, Row
from store.formats.table import read_csv, read_parquet
from store.layout import StoreError
from store.place import place

if TYPE_CHECKING:
    import pandas as pd

DEFAULT = "length_difference"
CALIPER = 0.2  # of the reals' standard deviation (Austin 2011, Pharmaceutical Statistics 10: 150-161)
HALVINGS = 8
SHIFTS = (0.0, 0.25, 0.5, 0.75)
TOLERANCE = 0.02  # largest distance of an AUC from 0.5


@dataclass(frozen=True)
class Matched:
    """One method ("all" = every method's clips together) against the reals of its corpus, before and after.

    reals, fakes: distinct clips with known nuisances (for `unknown` more they are not known); kept_*: clips with a
    weight; effective: effective number of reals after weighting (Kish). before, after: AUC of each nuisance in its
    better direction, NaN if it is undefined.
    """

    corpus: str
    method: str
    reals: int
    fakes: int
    unknown: int
    kept_reals: int
    kept_fakes: int
    effective: float
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)


def match(
    rows: Sequence[Row], table: pd.DataFrame, names: Sequence[str], by: str = "pairs", seed: int = 0
) -> tuple[dict[str, float], list[Matched]]:
    """Weight by id of each remaining clip, and the outcome for each method; `table` has one row per manifest row.

    Clips listed twice are used once. A real clip may be drawn for several methods; its weight is that of all its fakes
    together. Raises ManifestError for a nuisance that is not in the table, and if a corpus has no reals or no fakes to
    compare.
    """
    for name in names:
        if name not in table.columns:
            raise ManifestError(f'nuisance "{name}" is not known; there are {", ".join(map(str, table.columns))}')
    order = sorted(range(len(rows)), key=lambda k: rows[k].id)
    copies = leaks.first_copies([rows[k] for k in order])
    order = [order[k] for k, first in enumerate(copies) if k == first]
    rows, table = [rows[k] for k in order], table.iloc[order].reset_index(drop=True)
    label = np.array([row.label for row in rows])
    corpus, method = (np.array([getattr(row, name) for row in rows], object) for name in ("corpus", "method"))
    total = np.zeros(len(rows))
    found: list[Matched] = []
    for where in sorted(set(corpus)):
        real = (corpus == where) & (label == 0)
        methods = sorted(set(method[(corpus == where) & (label == 1)]))
        if not methods or not real.any():
            continue
        mine = np.zeros(len(rows))
        for name in methods:
            picked = np.flatnonzero(real | ((corpus == where) & (label == 1) & (method == name)))
            weight = _weights(table.iloc[picked], label[picked] == 1, names, by, seed)
            mine[picked] += weight
            found.append(_line(where, str(name), table.iloc[picked], label[picked] == 1, weight, names))
        if len(methods) > 1:
            picked = np.flatnonzero((corpus == where) & (label >= 0))
            found.append(_line(where, "all", table.iloc[picked], label[picked] == 1, mine[picked], names))
        total += mine
    if not found:
        raise ManifestError("there is nothing to match: no corpus here has both reals and fakes")
    return {rows[k].id: float(total[k]) for k in np.flatnonzero(total)}, found


def table_of(rows: Sequence[Row], file: str | os.PathLike[str] | None = None) -> pd.DataFrame:
    """Nuisances of the rows: those listed, and those of a table with a column id (CSV or Parquet), whose columns take
    precedence.

    Raises ManifestError if the table cannot be read, has an id twice, or has none of the rows.
    """
    import pandas as pd

    listed = nuisances.listed(rows)
    if file is None:
        return listed
    try:
        data = place(file).read()  # pandas would fetch any URL
        parquet = Path(file).suffix.lower() in PARQUET
        measured = read_parquet(data) if parquet else _numbers(read_csv(data))
    except (OSError, ValueError, StoreError) as error:
        raise ManifestError(f"nuisances {file} cannot be read: {str(error).splitlines()[0]}") from error
    if "id" not in measured.columns or measured["id"].duplicated().any():
        raise ManifestError(f"nuisances {file} need a column id that names each clip once")
    measured = measured.set_index(measured["id"].astype(str)).drop(columns="id")
    ids = [row.id for row in rows]
    if not measured.index.isin(ids).any():
        raise ManifestError(f"nuisances {file} have none of the {len(rows):,} clips; their ids must be the manifest's")
    measured = measured.reindex(ids).reset_index(drop=True)
    return pd.concat([measured, listed[[c for c in listed.columns if c not in measured.columns]]], axis=1)


def _numbers(table: pd.DataFrame) -> pd.DataFrame:
    """A table of texts with numeric columns converted to numbers; empty cells are unknown."""
    import pandas as pd

    for name in [name for name in table.columns if name != "id"]:
        known = table[name].where(table[name] != "")
        numbers = pd.to_numeric(known, errors="coerce")
        table[name] = known if (numbers.isna() & known.notna() & (known.str.lower() != "nan")).any() else numbers
    return table


def _weights(table: pd.DataFrame, fake: np.ndarray, names: Sequence[str], by: str, seed: int) -> np.ndarray:
    """Weight [n] of each clip, 0 for those that are dropped."""
    import pandas as pd

    known = table[list(names)].notna().all(axis=1).to_numpy()
    weight = np.zeros(len(table))
    if not fake[known].any() or fake[known].all():
        return weight
    some, y = table[known], fake[known]
    numeric = [name for name in names if pd.api.types.is_numeric_dtype(some[name])]
    for width in [*(CALIPER / 2**k for k in range(HALVINGS)), 0.0]:
        # The same cells shifted by a part of their width, so that no pair is lost because of the borders.
        tries = [_cells(_lay(some, names, numeric, y, width, shift), y, by, seed) for shift in SHIFTS]
        tries = [got for got in tries if got.any()]
        even = [got for got in tries if all(_even(some[name].to_numpy(np.float64), y, got) for name in numeric)]
        if even:
            weight[known] = max(even, key=lambda got: int((got > 0).sum()))
        if even or not tries:
            break
    return weight


def _lay(
    table: pd.DataFrame, names: Sequence[str], numeric: Sequence[str], fake: np.ndarray, width: float, shift: float
) -> np.ndarray:
    """Cell number [n, nuisances] of each clip; `width` in standard deviations of the reals, 0 for equal values only."""
    import pandas as pd

    columns = []
    for name in names:
        x = table[name].to_numpy()
        step = width * float(x[~fake].astype(np.float64).std()) if name in numeric else 0.0
        columns.append(np.floor(x.astype(np.float64) / step + shift) if step else pd.factorize(x, sort=True)[0])
    return np.stack(columns, 1).astype(np.int64)


def _even(x: np.ndarray, fake: np.ndarray, weight: np.ndarray) -> bool:
    return abs(weighted_auc(x, fake, weight) - 0.5) <= TOLERANCE


def weighted_auc(x: np.ndarray, fake: np.ndarray, weight: np.ndarray) -> float:
    """The probability that a fake's number [n] is above a real's (ties count half), weighted [n]; NaN without a fake or
    a real."""
    from sklearn.metrics import roc_auc_score

    some = weight > 0
    if not fake[some].any() or fake[some].all():
        return float("nan")
    return float(roc_auc_score(fake[some], x[some], sample_weight=weight[some]))


def _cells(cells: np.ndarray, fake: np.ndarray, by: str, seed: int) -> np.ndarray:
    """Weight [n] of clips in cells [n, nuisances]: equal numbers of both classes in each, or equal total weights."""
    _, cell = np.unique(cells, axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    fakes, reals = np.bincount(cell, fake), np.bincount(cell, ~fake)
    both = (fakes > 0) & (reals > 0)
    if by == "weights":
        share = np.divide(fakes, reals, out=np.zeros(len(fakes)), where=both)
        return np.where(fake, both[cell], share[cell]).astype(np.float64)
    # clips in random order, one run per cell and class; each keeps as many as the smaller class has
    drawn = np.random.default_rng(seed).permutation(len(cell))
    drawn = drawn[np.lexsort((fake[drawn], cell[drawn]))]
    run = cell[drawn] * 2 + fake[drawn]
    starts = np.flatnonzero(np.r_[True, run[1:] != run[:-1]])
    place = np.arange(len(run)) - np.repeat(starts, np.diff(np.r_[starts, len(run)]))
    weight = np.zeros(len(cell))
    weight[drawn] = place < np.minimum(fakes, reals)[cell[drawn]]
    return weight


def _line(
    corpus: str, method: str, table: pd.DataFrame, fake: np.ndarray, weight: np.ndarray, names: Sequence[str]
) -> Matched:
    known = table[list(names)].notna().all(axis=1).to_numpy()
    real = weight[~fake]
    return Matched(
        corpus,
        method,
        int((known & ~fake).sum()),
        int((known & fake).sum()),
        int((~known).sum()),
        int((real > 0).sum()),
        int((weight[fake] > 0).sum()),
        float(real.sum() ** 2 / (real**2).sum()) if real.any() else 0.0,
        _aucs(table, fake, np.ones(len(table))),
        _aucs(table, fake, weight),
    )


def _aucs(table: pd.DataFrame, fake: np.ndarray, weight: np.ndarray) -> dict[str, float]:
    """AUC of each number in its better direction among clips with a weight; NaN without a real or a fake."""
    import pandas as pd

    found = {}
    for name in table.columns:
        if not pd.api.types.is_numeric_dtype(table[name]):
            continue
        x = table[name].to_numpy(np.float64)
        known = ~np.isnan(x)
        value = weighted_auc(x[known], fake[known], weight[known])
        found[str(name)] = max(value, 1 - value)
    return found
