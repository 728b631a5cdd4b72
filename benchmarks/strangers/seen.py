"""How many of the scored clips a fit may have learned from: figures of those say nothing about strangers."""

from __future__ import annotations

import os
from collections.abc import Sequence

import store
from benchmarks.strangers.listed import Listed
from pipelines.labels.learn import training_clips


def by_fit(listed: Sequence[Listed], fit_from: str | None) -> int | None:
    """The number of clips that the fit of a store may have learned from: all of its real training clips. None if it cannot be
    told: of the package's fit (None), of a file, and of a fit from elsewhere only the names of corpora are known, and clips
    may stand under other names here."""
    if fit_from is None or os.path.isfile(fit_from):
        return None
    reader = store.open(fit_from)
    if "fit_from" in (reader.attrs.get("similarity") or {}):
        return None
    taught = {os.path.realpath(str(reader.clips["path"][i])) for i in training_clips(reader)}
    return sum(os.path.realpath(one.row.path) in taught for one in listed)
