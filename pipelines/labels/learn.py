"""Learns the shared space from a store's real training clips.

For cca, moments are collected shard by shard and merged in the order of shards, so that a fit does not depend on the
workers. They are kept in five parts by identity: a clip is scored by the fit of the other four parts, which has not
seen it. For contrast and fused one part of ten is held out (`pipelines.labels.contrast`). Calibration, Brier scores and
the control use clips that a fit has not seen. The control is the same fit on shuffled pairs: it shows how much fixed
timing in the corpus gives without content.

Where there are enough people, a fit is also learned without each fifth of them, and scores them: that is what strangers
score (`pipelines.labels.strangers`).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

import store
from concord.text import counted
from pipelines.labels import contrast, leave_out, projection, strangers
from pipelines.labels.calibrate import Seen, calibrate, embeddings, judged, pair_scores, rounded
from pipelines.labels.people import People, people
from pipelines.workers.chain import Spread
from store import layout, seen, similarity
from store.place import Place
from store.similarity import Fit, Moments, grounds

log = logging.getLogger(__name__)

FOLDS = 5  # parts for cca
TENTHS = 10  # parts for contrast, the first of which is held out
FEW_CLIPS = 20  # a fit on fewer clips gives a warning


@dataclass(frozen=True)
class Material:
    """The material of a fit: rows of real training clips, the part of each, and how work is spread over a cluster."""

    root: Place
    reader: store.Reader
    clips: np.ndarray
    parts: np.ndarray
    spread: Spread


@dataclass(frozen=True)
class Fitted:
    """The result: the fit; the rows of the clips that it learned from, also of those that only ended its training early;
    the fit that evaluates the clips of each part, None if every fit has learned from that part; the same for the control
    on shuffled pairs; the entry for the attributes; and what the network learned from."""

    fit: Fit
    rows: np.ndarray
    held_out: list[Fit | None]
    control: list[Fit | None]
    note: dict[str, Any]
    taught: leave_out.Taught | None = None


def training_clips(reader: store.Reader) -> np.ndarray:
    """Rows of finished clips that a fit may learn from: known to be real, in the train split or in none."""
    c = reader.clips
    return np.flatnonzero((c["done"] == 1) & (c["label"] == 0) & np.isin(c["split"].astype(str), ["", "train"]))


def folds(reader: store.Reader, clips: np.ndarray, count: int, who: People | None = None) -> np.ndarray:
    """Part of each of `clips`, at most `count` parts. In each corpus by people (by group; `who` tells those that are not
    named), if there are enough of them, else by clip: so every part has clips of every corpus.

    With few clips there are fewer parts, so that every part has clips to swap; with one part there are no held-out
    scores.
    """
    c = reader.clips
    who = who or people(reader, clips)
    named = zip(c["identities"][clips].astype(str), c["group"][clips].astype(str), who.names, strict=True)
    units = [group if identities not in ("", "[]") and group else name for identities, group, name in named]
    corpora = c["corpus"][clips].astype(str)
    parts, few = np.zeros(len(clips), int), np.zeros(len(clips), bool)
    known: dict[str, int] = {}
    for corpus in dict.fromkeys(corpora.tolist()):
        mine = np.flatnonzero(corpora == corpus)
        distinct = {name: k for k, name in enumerate(dict.fromkeys(units[k] for k in mine))}
        by_people = len(distinct) >= count
        number = np.array([distinct[units[k]] for k in mine]) if by_people else np.arange(len(mine))
        most = max(1, min(count, (int(number.max(initial=0)) + 1) // 2))
        parts[mine] = number % most
        few[mine] = most == 1
        if by_people:  # somebody who is in several corpora stays in one part
            parts[mine] = [known.setdefault(units[k], part) for k, part in zip(mine, parts[mine].tolist(), strict=True)]
    if parts.any():
        parts[few] = 1  # a corpus of too few clips to divide is learned from
    return parts


def swapped(clips: np.ndarray, parts: np.ndarray) -> list[tuple[int, int]]:
    """A partner for each clip, whose sound replaces its own: another clip of the same part, half a part away."""
    pairs = []
    for part in np.unique(parts):
        members = clips[parts == part]
        if len(members) > 1:
            pairs += list(zip(members.tolist(), np.roll(members, max(1, len(members) // 2)).tolist(), strict=True))
    return sorted(pairs)


def gather(
    root: Place, clips: list[int], parts: list[int], partners: list[int], context: int, count: int
) -> list[Moments | None]:
    """Moments of each part of some clips, then of each part with the partners' sound: 2 x `count`, None for empty
    parts."""
    reader = store.open(root)
    found: list[Moments | None] = [None] * (2 * count)
    for clip, part, partner in zip(clips, parts, partners, strict=True):
        own = projection.levelled(embeddings(reader, clip))
        x = similarity.with_context(own["vsr"], context)
        other = own if partner == clip else projection.levelled(embeddings(reader, partner))
        for k, sound in ((part, own), (count + part, other)):
            length = min(len(x), len(sound["asr"]))
            mask = layout.labelled(own["flags"][:length], sound["flags"][:length])
            if mask.any():
                now = Moments.of(x[:length][mask], sound["asr"][:length][mask])
                so_far = found[k]
                found[k] = now if so_far is None else so_far + now
    return found


def learn(root: Place, spread: Spread, kind: str, seed: int) -> tuple[Fit | None, dict[str, Any]]:
    """A calibrated fit of `kind` and its note for the attributes; (None, {}) without clips to learn from."""
    reader = store.open(root)
    clips = training_clips(reader)
    corpora = sorted(set(reader.clips["corpus"][reader.clips["done"] == 1].astype(str)))
    if kind not in similarity.LEARNED:
        fit = similarity.unlearned(kind, _width(reader, "vsr"))
        note = {"kind": kind, "dims": fit.dims}
        dealt = leave_out.deal(reader, clips, people(reader, clips)) if kind != "posterior" else None
        if dealt:  # all people are strangers to it
            note |= strangers.measure(root, spread, dealt, [fit] * dealt.count)
        return calibrate(root, fit, note, None, corpora)
    if len(clips) == 0:
        return None, {}
    if len(clips) < FEW_CLIPS:
        has = counted(len(clips), "real training clip")
        log.warning("the fit has %s; with fewer than %d its soft labels are not reliable", has, FEW_CLIPS)
    who = people(reader, clips)
    parts = folds(reader, clips, FOLDS if kind == "cca" else TENTHS, who)
    found = _from_parts(Material(root, reader, clips, parts, spread), kind, seed)
    if found is None:
        return None, {}
    note = {
        "kind": kind,
        "dims": found.fit.dims,
        **found.note,
        "fitted_on": {
            **found.note["fitted_on"],
            "groups": len(set(reader.clips["group"][clips].astype(str))),
            "speakers": grounds.count(grounds.people(reader.clips["identities"][clips]), ())[0],
            "corpora": sorted(set(reader.clips["corpus"][clips].astype(str))),
        },
    }
    if all(found.control[part] is not None for part in np.unique(parts) if found.held_out[part] is not None):
        pairs = pair_scores(reader, *judged(clips, parts, found.held_out), [c or found.fit for c in found.control])
        if all(len(pairs.positive[w]) and len(pairs.negative[w]) for w in similarity.WINDOWS):
            note["shuffled_control"] = {
                w: rounded(similarity.auc(pairs.positive[w], pairs.negative[w])) for w in similarity.WINDOWS
            }
    if dealt := leave_out.deal(reader, clips, who):
        left_out = leave_out.fits_without(
            root,
            spread,
            kind,
            seed,
            dealt,
            found.taught,
            partial(_of_parts, Material(root, reader, clips, parts, spread)),
        )
        note |= strangers.measure(root, spread, dealt, left_out)
    part_of = {int(clip): int(part) for clip, part in zip(clips, parts, strict=True)}
    fit = replace(found.fit, seen=seen.keys(reader, found.rows))
    return calibrate(root, fit, note, Seen(part_of, found.held_out), corpora)


def from_clips(
    root: Place, clips: np.ndarray, spread: Spread, kind: str, seed: int
) -> tuple[Fitted | None, np.ndarray]:
    """A fit of a learned `kind` from the rows `clips` of a store alone, uncalibrated, and the part of each clip; None if
    they have too few frames with face and voice. The store is only read."""
    reader = store.open(root)
    parts = folds(reader, clips, FOLDS if kind == "cca" else TENTHS)
    return _from_parts(Material(root, reader, clips, parts, spread), kind, seed), parts


def _from_parts(material: Material, kind: str, seed: int) -> Fitted | None:
    return _learn_cca(material) if kind == "cca" else _learn_contrast(material, kind, seed)


def _learn_cca(material: Material) -> Fitted | None:
    moments = _moments(material)
    if moments is None:
        return None
    true, shuffled, context = moments
    whole = _sum(true)
    assert whole is not None
    fit = leave_out.linear_fit(whole, context)
    return Fitted(
        fit,
        material.clips,
        [_fit_without(true, part, context) or fit for part in range(len(true))],
        [_fit_without(shuffled, part, context) for part in range(len(true))],
        {
            "shrinkage": similarity.SHRINKAGE,
            "context": context,
            "fitted_on": {"clips": len(material.clips), "frames": whole.count},
            "correlations": [round(float(c), 4) for c in fit.correlations[:8]],
        },
    )


def _learn_contrast(material: Material, kind: str, seed: int) -> Fitted | None:
    """The network, and for fused also a cca, learned on all parts except the first, which is for evaluation; a single
    part is used for both."""
    reader, clips, parts, spread = material.reader, material.clips, material.parts, material.spread
    alone = parts.max() == 0
    teach = contrast.evenly(clips[(parts > 0) | alone].tolist(), contrast.CLIPS)
    held = [] if alone else contrast.evenly(clips[parts == 0].tolist(), contrast.CLIPS)
    partners = dict(swapped(clips, parts))
    noisy = contrast.noisy_embeddings(reader, teach, spread, seed)
    jobs = [(material.root, teach, held, {}, noisy, seed), (material.root, teach, held, partners, {}, seed)]
    log.info("learning two networks, the second of shuffled pairs, as a control")
    try:
        (network, steps, seconds), (shuffled_network, _, _) = spread(contrast.train, jobs)
    except ValueError as error:
        log.warning("no %s fit: %s", kind, error)
        return None
    log.info("learned %s in %.0f s on one core, %d steps", counted(len(steps), "network"), seconds, sum(steps))
    fit, control = (leave_out.network_fit(arrays) for arrays in (network, shuffled_network))
    dims = fit.dims
    frames = sum(int(_labels(reader, clip).sum()) for clip in teach)
    note = {
        "seed": seed,
        "steps": list(steps),
        "noisy_sounds": len(noisy) * contrast.SOUNDS,
        "fitted_on": {"clips": len(teach), "frames": frames, "held_out": len(held)},
    }
    if kind == "fused":
        moments = _moments(material)
        if moments is None:
            return None
        true, shuffled, context = moments
        whole = [_sum(side if alone else side[1:]) for side in (true, shuffled)]
        if whole[0] is None or whole[1] is None or min(m.count for m in whole if m) <= similarity.DIMS:
            log.warning("the clips that are not held out have too few frames with face and voice for a fit")
            return None
        fit, control = (
            projection.fuse(leave_out.linear_fit(m, context), f.network, dims)
            for m, f in zip(whole, (fit, control), strict=True)
            if m is not None
        )
    others: list[Fit | None] = [None] * (len(set(parts.tolist())) - 1)
    learned = clips[(parts > 0) | np.isin(clips, held) | alone] if kind == "fused" else np.unique([*teach, *held])
    return Fitted(fit, learned, [fit, *others], [control, *others], note, leave_out.Taught(teach, held, noisy))


def _of_parts(material: Material, parts: np.ndarray) -> leave_out.Parts | None:
    """Moments of other parts of the clips, and the frames of context."""
    found = _moments(replace(material, parts=parts), shuffle=False)
    return found and (found[0], found[2])


def _moments(material: Material, shuffle: bool = True) -> tuple[list[Moments | None], list[Moments | None], int] | None:
    """Moments of each part, the same of shuffled pairs (of true ones again without `shuffle`), and the frames of context;
    None if there are too few for a cca."""
    root, reader, clips, parts = material.root, material.reader, material.clips, material.parts
    count = int(parts.max()) + 1
    partner = dict(swapped(clips, parts)) if shuffle else {}
    context = similarity.context_for(_width(reader, "vsr"))
    by_shard: dict[int, list[int]] = defaultdict(list)
    for k, clip in enumerate(clips):
        by_shard[int(reader.clips["offset"][clip]) // layout.SHARD].append(k)
    jobs = [
        (root, clips[ks].tolist(), parts[ks].tolist(), [partner.get(int(c), int(c)) for c in clips[ks]], context, count)
        for _, ks in sorted(by_shard.items())
    ]
    total: list[Moments | None] = [None] * (2 * count)
    for found in material.spread(gather, jobs):
        total = [b if a is None else a if b is None else a + b for a, b in zip(total, found, strict=True)]
    whole = _sum(total[:count])
    if whole is None or whole.count <= similarity.DIMS:
        frames = whole.count if whole else 0
        of = f"{counted(frames, 'frame')} of {counted(len(clips), 'real training clip')}"
        log.warning("face and voice are in %s: too few for a fit", of)
        return None
    return total[:count], total[count:], context


def _labels(reader: store.Reader, clip: int) -> np.ndarray:
    flags = reader.frames(clip, 0, int(reader.clips["length"][clip]), ["flags"])["flags"]
    return layout.labelled(flags, flags)


def _sum(parts: Sequence[Moments | None]) -> Moments | None:
    found = [part for part in parts if part is not None]
    total = found[0] if found else None
    for part in found[1:]:
        assert total is not None
        total = total + part
    return total


def _fit_without(parts: Sequence[Moments | None], part: int, context: int) -> Fit | None:
    rest = _sum([m for k, m in enumerate(parts) if k != part])
    return leave_out.linear_fit(rest, context) if rest is not None and rest.count > similarity.DIMS else None


def _width(reader: store.Reader, side: str) -> int:
    return reader.array(side).shape[1]
