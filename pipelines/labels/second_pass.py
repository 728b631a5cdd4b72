"""The second pass over a store: which fit it gets, then projections and soft labels for every shard that needs them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import store
from pipelines.labels import learn, projection
from pipelines.labels.borrow import borrowed_fit
from pipelines.labels.calibrate import calibrate, embeddings
from pipelines.labels.projection import half
from pipelines.workers.cluster import Spread
from pipelines.workers.plan import clips_of_shard
from store import layout, similarity
from store.place import Place, place
from store.similarity import Fit

log = logging.getLogger(__name__)

LONGER = 2  # a warning comes where clips are more than so many times as long as those of the fit
DEFAULT = "fused"  # with 20 clips or more as good as the better of its parts, or better (docs/teachers.md)


@dataclass(frozen=True)
class Wish:
    """What a user asks of the fit; None = what the store has, or the default."""

    kind: str | None = None  # of similarity
    refit: bool = False
    fit_from: Place | None = None
    seed: int = 0


def second_pass(
    root: Place, writer: store.Writer, wish: Wish, spread: Spread, foreign: Collection[int] = ()
) -> dict[str, Any]:
    """Fit where there is none or one was asked for, calibrate new corpora, label every shard that needs it and the `foreign`.

    Returns the note of the fit (the store's attribute `similarity`), empty where nothing could be fitted.
    """
    reader = store.open(root)
    done = reader.clips["done"] == 1
    corpora = sorted(set(reader.clips["corpus"][done].astype(str)))
    note: dict[str, Any] = dict(writer.attrs.get("similarity") or {})
    # A run that died while it replaced the fit may have left the old one: what it was asked for is done again.
    interrupted = bool(note) and not note.get("complete")
    fit = _stored_fit(reader, interrupted or wish.refit or wish.fit_from is not None)
    source = wish.fit_from or (note.get("fit_from") if interrupted and not wish.refit else None)
    anew = True
    if source is not None and (interrupted or fit is None or note.get("fit_from") != str(source)):
        fit, note = _borrowed(reader, place(source, place(root).options), writer.attrs["teachers"], corpora)
    elif wish.refit or fit is None or interrupted:
        seed = note["seed"] if interrupted and not wish.refit and "seed" in note else wish.seed
        fit, note = learn.learn(root, spread, wish.kind or note.get("kind") or default_kind(reader), seed)
        note["clip_frames"] = reader.typical_length
    else:
        anew = False
    if fit is None:
        return {}
    fresh = [] if anew else [corpus for corpus in corpora if corpus not in note.get("auc", {})]
    if fresh:
        fit, note = calibrate(root, fit, note, None, fresh)
    note["complete"] = True
    if anew:
        writer.update_attrs({"similarity": {**note, "complete": False}})
        writer.ensure_projections(fit.dims)
    if anew or fresh:
        writer.write_fit(fit.to_arrays())
    shards = sorted({*shards_to_label(store.open(root), anew), *foreign})
    if shards:
        log.info("writing projections and soft labels of %d shards", len(shards))
        for _ in spread(label_shard, [(root, shard) for shard in shards]):
            pass
    if anew or fresh:
        writer.update_attrs({"similarity": note})
    return note


def _borrowed(
    reader: store.Reader, source: Place, teachers: dict[str, Any], corpora: Sequence[str]
) -> tuple[Fit, dict[str, Any]]:
    """The fit of `source`, calibrated on this store's corpora, and its note."""
    fit, note = borrowed_fit(source, teachers)
    fit, note = calibrate(reader.place, replace(fit, calibration={}), note, None, corpora)
    seen, here = note.get("clip_frames", 0), reader.typical_length
    if 0 < LONGER * seen < here:
        log.warning(
            "the fit of %s was learned on clips of %.1f s, and this store has clips of %.1f s: a speech model's rows depend on "
            "how late they are in a clip, so later seconds seem to agree less; --refit learns from these clips, if any is real",
            source,
            seen / layout.FPS,
            here / layout.FPS,
        )
    return fit, note


def _stored_fit(reader: store.Reader, is_replaced: bool) -> Fit | None:
    """The store's fit; None where it has none, or has a damaged or half replaced one and this run makes another."""
    try:
        return reader.fit
    except store.StoreError:
        if not is_replaced:
            raise
        return None


def default_kind(reader: store.Reader) -> str:
    """The kind of similarity of a new store: with a network where there are enough clips to train one, else cca alone."""
    return DEFAULT if len(learn.training_clips(reader)) >= learn.FEW_CLIPS else "cca"


def shards_to_label(reader: store.Reader, everything: bool) -> list[int]:
    """Shards with done clips: all of them, or those whose projections or soft labels are damaged or still empty."""
    if everything:
        return reader.shards_in_use()
    damaged = reader.damaged_shards(layout.LEARNED_ARRAYS)
    shards = {shard for found in damaged.values() for shard in found}
    c = reader.clips
    for clip in np.flatnonzero(c["done"] == 1).tolist():
        first = int(c["offset"][clip]) // layout.SHARD
        last = (int(c["offset"][clip]) + int(c["length"][clip]) - 1) // layout.SHARD
        if first not in shards and _unlabelled(reader, clip):
            shards |= set(range(first, last + 1))
    return sorted(shards)


def foreign_shards(reader: store.Reader) -> list[int]:
    """Shards whose projections or soft labels are not the ones that were written, by a closed inventory. Ask before the run
    opens the inventory."""
    if not (reader.inventory.complete and set(layout.LEARNED_ARRAYS) <= set(reader.names)):
        return []
    return sorted({shard for found in reader.damaged_shards(layout.LEARNED_ARRAYS).values() for shard in found})


def _unlabelled(reader: store.Reader, clip: int) -> bool:
    return bool(np.isnan(reader.frames(clip, 0, 1, ["similarity"])["similarity"][0]))


def label_shard(root: Place, shard: int) -> int:
    """Write the shard's projections and soft labels whole, from its embeddings and the stored fit; clips labelled."""
    reader, writer = store.open(root), store.Writer.open(root)
    fit = reader.new_fit
    if fit is None:
        raise store.StoreError(f"{root} has no fit to label with")
    to_vsr, to_asr = projection.maps(fit)
    start = shard * layout.SHARD
    arrays = writer.blank_shard(layout.LEARNED_ARRAYS)
    clips = clips_of_shard(reader.clips, shard)
    for clip in clips:
        got = embeddings(reader, clip)
        v, a = half(to_vsr(got["vsr"])), half(to_asr(got["asr"]))
        corpus = str(reader.clips["corpus"][clip])
        label = similarity.compare(v, a, fit, 5, layout.labelled(got["flags"], got["flags"]), corpus)
        # A clip longer than a shard is projected once for each of its shards: rare, and every shard stays one write.
        begin = int(reader.clips["offset"][clip]) - start
        rows = slice(max(begin, 0), min(begin + len(v), layout.SHARD))
        own = slice(rows.start - begin, rows.stop - begin)
        for name, values in (("vsr_projection", v), ("asr_projection", a), ("similarity", label.astype(np.float16))):
            arrays[name][rows] = values[own]
    writer.write_shard(shard, arrays)
    return len(clips)
