"""The second pass over a store: chooses or learns the fit, then writes projections and soft labels for every shard that
needs them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import store
from concord.text import counted
from pipelines.labels import learn, projection
from pipelines.labels.borrow import borrowed_fit
from pipelines.labels.calibrate import calibrate, embeddings
from pipelines.labels.projection import half
from pipelines.workers.chain import Spread
from pipelines.workers.plan import clips_of_shard
from store import layout, similarity
from store.place import Place, place
from store.similarity import Fit

log = logging.getLogger(__name__)

LONGER = 2  # a warning is given if clips are more than this many times as long as those of the fit
DEFAULT = "fused"  # with at least 20 clips at least as good as the better of its parts (docs/teachers.md)


@dataclass(frozen=True)
class Wish:
    """The user's options for the fit; None = the store's value, or the default."""

    kind: str | None = None  # of similarity
    refit: bool = False
    fit_from: Place | None = None
    seed: int = 0


def second_pass(
    root: Place, writer: store.Writer, wish: Wish, spread: Spread, foreign: Collection[int] = ()
) -> dict[str, Any]:
    """Fit if there is no fit or one is requested, calibrate new corpora, label every shard that needs it and the
    `foreign` ones.

    Returns the note of the fit (the store's attribute `similarity`), empty if nothing could be fitted.
    """
    reader = store.open(root)
    done = reader.clips["done"] == 1
    corpora = sorted(set(reader.clips["corpus"][done].astype(str)))
    note: dict[str, Any] = dict(writer.attrs.get("similarity") or {})
    # A run that died while it replaced the fit may have left the old one: its request is executed again.
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
        log.info("writing projections and soft labels of %s", counted(len(shards), "shard"))
        for _ in spread(label_shard, [(root, shard) for shard in shards]):
            pass
    if anew or fresh:
        marked = {"held_pictures": True} if anew else {}  # the flags of all shards have the bit now
        writer.update_attrs({"similarity": note, **marked})
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
    """The store's fit; None if it has none, or if it is damaged or half replaced and this run makes another."""
    try:
        return reader.fit
    except store.StoreError:
        if not is_replaced:
            raise
        return None


def default_kind(reader: store.Reader) -> str:
    """The kind of similarity for a new store: with a network if there are enough clips to train one, else only cca."""
    return DEFAULT if len(learn.training_clips(reader)) >= learn.FEW_CLIPS else "cca"


def shards_to_label(reader: store.Reader, everything: bool) -> list[int]:
    """Shards with finished clips: all of them, or those whose projections or soft labels are damaged or still empty."""
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
    """Shards whose projections or soft labels differ from those that were written, according to a closed inventory.
    Call this before the run opens the inventory."""
    if not (reader.inventory.complete and set(layout.LEARNED_ARRAYS) <= set(reader.names)):
        return []
    return sorted({shard for found in reader.damaged_shards(layout.LEARNED_ARRAYS).values() for shard in found})


def _unlabelled(reader: store.Reader, clip: int) -> bool:
    return bool(np.isnan(reader.frames(clip, 0, 1, ["similarity"])["similarity"][0]))


def label_shard(root: Place, shard: int) -> int:
    """Write the shard's projections and soft labels completely, from its embeddings and the stored fit, and in a store of
    an earlier release the flags with the bit of held pictures; returns the number of clips."""
    reader, writer = store.open(root), store.Writer.open(root)
    fit = reader.new_fit
    if fit is None:
        raise store.StoreError(f"{root} has no fit to label with")
    to_vsr, to_asr = projection.maps(fit)
    start = shard * layout.SHARD
    arrays = writer.blank_shard([*layout.LEARNED_ARRAYS, *([] if reader.has_held_pictures else ["flags"])])
    clips = clips_of_shard(reader.clips, shard)
    for clip in clips:
        got = embeddings(reader, clip)
        v, a = half(to_vsr(got["vsr"], got["flags"])), half(to_asr(got["asr"], got["flags"]))
        corpus = str(reader.clips["corpus"][clip])
        label = similarity.compare(v, a, fit, 5, layout.labelled(got["flags"], got["flags"]), corpus)
        # A clip longer than a shard is projected once for each of its shards: rare, and every shard stays one write.
        begin = int(reader.clips["offset"][clip]) - start
        rows = slice(max(begin, 0), min(begin + len(v), layout.SHARD))
        own = slice(rows.start - begin, rows.stop - begin)
        found = {
            "vsr_projection": v,
            "asr_projection": a,
            "similarity": label.astype(np.float16),
            "flags": got["flags"],
        }
        for name, values in arrays.items():
            values[rows] = found[name][own]
    writer.write_shard(shard, arrays)
    return len(clips)
