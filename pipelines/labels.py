"""The second pass over a store: which fit it has, and which shards still need projections and soft labels."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import store
from pipelines import fit
from pipelines.request import Config, borrowed_fit
from store import layout

log = logging.getLogger(__name__)


def second_pass(root: Path, writer: store.Writer, config: Config, spread: fit.Spread) -> dict[str, Any]:
    """Fit where there is none or one was asked for, calibrate new corpora, label every shard that needs it.

    Returns the note of the fit (the store's attribute `similarity`), empty where nothing could be fitted.
    """
    reader = store.open(root)
    done = reader.clips["done"] == 1
    corpora = sorted(set(reader.clips["corpus"][done].astype(str)))
    here, note = reader.fit, dict(writer.attrs.get("similarity") or {})
    interrupted = bool(note) and not note.get("complete")
    borrow = config.fit_from is not None and (interrupted or note.get("fit_from") != str(config.fit_from))
    anew = borrow or config.refit or here is None or interrupted
    if borrow:
        assert config.fit_from is not None
        here, note = borrowed_fit(config.fit_from, writer.attrs["teachers"])
        here, note = fit.calibrate(root, replace(here, calibration={}), note, None, corpora)
    elif config.refit or here is None:
        here, note = fit.learn(root, spread)
    if here is None:
        return {}
    fresh = [corpus for corpus in corpora if not here.calibration.get(corpus)]
    if fresh:
        here, note = fit.calibrate(root, here, note, None, fresh)
    note["complete"] = True
    if anew or fresh:
        writer.update_attrs({"similarity": {**note, "complete": False}})
        writer.ensure_projections(here.dims)
        writer.write_fit(here.to_arrays())
    shards = shards_to_label(store.open(root), anew)
    if shards:
        log.info("writing projections and soft labels of %d shards", len(shards))
        for _ in spread(fit.label_shard, [(root, shard) for shard in shards]):
            pass
    if anew or fresh:
        writer.update_attrs({"similarity": note})
    return note


def shards_to_label(reader: store.Reader, everything: bool) -> list[int]:
    """Shards with done clips: all of them, or those whose soft labels are still empty."""
    c = reader.clips
    shards: set[int] = set()
    for clip in np.flatnonzero(c["done"] == 1).tolist():
        first = int(c["offset"][clip]) // layout.SHARD
        last = (int(c["offset"][clip]) + int(c["length"][clip]) - 1) // layout.SHARD
        if everything or (first not in shards and _unlabelled(reader, clip)):
            shards |= set(range(first, last + 1))
    return sorted(shards)


def _unlabelled(reader: store.Reader, clip: int) -> bool:
    return bool(np.isnan(reader.frames(clip, 0, 1, ["similarity"])["similarity"][0]))
