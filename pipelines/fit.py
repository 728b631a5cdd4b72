"""The second pass: learn the shared space from real training clips, calibrate it, write projections and soft labels.

Moments are gathered shard by shard and merged in the order of shards, so that a fit is the same whatever the workers did.
They are kept in five parts by identity: scores of a clip under the fit of the other four parts are as of clips never seen, and
calibration, Brier scores and the control rest on those alone. The control is the same fit on shuffled pairs: what the corpus's
fixed timing gives without content.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import store
from pipelines.plan import clips_of_shard
from store import layout, similarity
from store.similarity import Fit, Moments

log = logging.getLogger(__name__)

FOLDS = 5
FEW_CLIPS = 20  # a fit on fewer warns
CALIBRATION_CLIPS = 500  # a corpus's clips that calibrate it, evenly spaced: the map has two numbers

T = TypeVar("T")
# Runs a function over arguments, somewhere, and yields the answers in the order of the arguments.
Spread = Callable[[Callable[..., T], Sequence[tuple[Any, ...]]], Iterable[T]]


@dataclass(frozen=True)
class Figures:
    """How well a corpus's true pairs part from its swaps: out-of-fold AUC and Brier score by window, clips used."""

    corpus: str
    clips: int
    auc: dict[str, float]
    brier: dict[str, float]
    on: str  # "train and val", or "test" where nothing else was real


def training_clips(reader: store.Reader) -> np.ndarray:
    """Rows of done clips that a fit may learn from: known real, of the train split or of none."""
    c = reader.clips
    return np.flatnonzero((c["done"] == 1) & (c["label"] == 0) & np.isin(c["split"].astype(str), ["", "train"]))


def folds(reader: store.Reader, clips: np.ndarray) -> np.ndarray:
    """Part of each of `clips`, at most FOLDS parts: by group where there are enough groups, else by clip.

    Few clips make fewer parts, so that every part has clips to swap; one part alone means no held-out scores.
    """
    names = reader.clips["group"][clips].astype(str)
    distinct = {name: k for k, name in enumerate(dict.fromkeys(names))}
    units = np.array([distinct[name] for name in names]) if len(distinct) >= FOLDS else np.arange(len(clips))
    return units % max(1, min(FOLDS, (int(units.max(initial=0)) + 1) // 2))


def swapped(clips: np.ndarray, parts: np.ndarray) -> list[tuple[int, int]]:
    """A partner for each clip whose sound stands in for its own: another clip of the same part, half a part away."""
    pairs = []
    for part in range(FOLDS):
        members = clips[parts == part]
        if len(members) > 1:
            pairs += list(zip(members.tolist(), np.roll(members, max(1, len(members) // 2)).tolist(), strict=True))
    return sorted(pairs)


def gather(root: Path, clips: list[int], parts: list[int], partners: list[int], context: int) -> list[Moments | None]:
    """Moments of each part of some clips, then of each part with the partners' sound: 2 x FOLDS, None where empty."""
    reader = store.open(root)
    found: list[Moments | None] = [None] * (2 * FOLDS)
    for clip, part, partner in zip(clips, parts, partners, strict=True):
        own = _read(reader, clip)
        x = similarity.with_context(own["vsr"].astype(np.float32), context)
        other = own if partner == clip else _read(reader, partner)
        for k, sound in ((part, own), (FOLDS + part, other)):
            length = min(len(x), len(sound["asr"]))
            mask = _mask(own["flags"][:length], sound["flags"][:length])
            if mask.any():
                now = Moments.of(x[:length][mask], sound["asr"][:length][mask].astype(np.float32))
                so_far = found[k]
                found[k] = now if so_far is None else so_far + now
    return found


def learn(root: Path, spread: Spread) -> tuple[Fit | None, dict[str, Any]]:
    """A CCA fit on the store's real training clips and what to say of it in the attributes; (None, {}) without such clips."""
    reader = store.open(root)
    clips = training_clips(reader)
    if len(clips) == 0:
        return None, {}
    if len(clips) < FEW_CLIPS:
        log.warning(
            "the fit has %d real training clips; under %d its soft labels are not to be trusted", len(clips), FEW_CLIPS
        )
    parts = folds(reader, clips)
    partner = dict(swapped(clips, parts))
    context = similarity.context_for(_width(reader, "vsr"))
    by_shard: dict[int, list[int]] = defaultdict(list)
    for k, clip in enumerate(clips):
        by_shard[int(reader.clips["offset"][clip]) // layout.SHARD].append(k)
    jobs = [
        (root, clips[ks].tolist(), parts[ks].tolist(), [partner.get(int(c), int(c)) for c in clips[ks]], context)
        for _, ks in sorted(by_shard.items())
    ]
    total: list[Moments | None] = [None] * (2 * FOLDS)
    for found in spread(gather, jobs):
        total = [b if a is None else a if b is None else a + b for a, b in zip(total, found, strict=True)]
    true, shuffled = total[:FOLDS], total[FOLDS:]
    whole = _sum(true)
    if whole is None or whole.count <= similarity.DIMS:
        frames = whole.count if whole else 0
        log.warning("%d frames of %d real training clips have face and voice: too few for a fit", frames, len(clips))
        return None, {}
    fit = similarity.fit_cca(whole, context)
    held_out = [_fit_without(true, part, context) or fit for part in range(FOLDS)]
    control = [_fit_without(shuffled, part, context) for part in range(FOLDS)]
    groups = len(set(reader.clips["group"][clips].astype(str)))
    note: dict[str, Any] = {
        "kind": "cca",
        "dims": fit.dims,
        "shrinkage": similarity.SHRINKAGE,
        "context": context,
        "fitted_on": {"clips": len(clips), "frames": whole.count, "groups": groups},
        "correlations": [round(float(c), 4) for c in fit.correlations[:8]],
    }
    if all(control[part] is not None for part in np.unique(parts)):
        positive, negative = pair_scores(reader, clips, parts, [c or fit for c in control])
        if all(len(positive[w]) and len(negative[w]) for w in similarity.WINDOWS):
            note["shuffled_control"] = {w: _round(similarity.auc(positive[w], negative[w])) for w in similarity.WINDOWS}
    return calibrate(root, fit, note, held_out, sorted(set(reader.clips["corpus"][clips].astype(str))))


def calibrate(
    root: Path, fit: Fit, note: dict[str, Any], held_out: list[Fit] | None, corpora: Sequence[str]
) -> tuple[Fit, dict[str, Any]]:
    """The fit with a map for each of `corpora` that has swaps of its own, and `note` with their figures.

    A training clip is scored by the fit of the other parts (`held_out`); a clip that the fit never saw by the fit itself.
    """
    reader = store.open(root)
    c = reader.clips
    seen = training_clips(reader) if held_out else np.zeros(0, int)
    part_of = dict(zip(seen.tolist(), folds(reader, seen).tolist(), strict=True))
    note = {**note, "calibrated_on": dict(note.get("calibrated_on", {}))}
    for name in ("auc", "brier"):
        note[name] = dict(note.get(name, {}))
    for corpus in corpora:
        mine = (c["done"] == 1) & (c["corpus"].astype(str) == corpus)
        use = np.flatnonzero(mine & (c["label"] == 0) & (c["split"].astype(str) != "test"))
        on = "real train and val clips"
        if len(use) < 2:
            use, on = np.flatnonzero(mine & (c["label"] != 1) & (c["split"].astype(str) != "test")), "unlabelled clips"
        if len(use) < 2:
            use, on = np.flatnonzero(mine & (c["label"] != 1)), "test clips, for want of others"
        if len(use) < 2:
            log.warning("corpus %s has no two clips to swap: its similarities stay uncalibrated", corpus)
            continue
        use = use[np.unique(np.linspace(0, len(use) - 1, min(len(use), CALIBRATION_CLIPS)).round().astype(int))]
        if part_of and len(set(part_of.values())) == 1:
            on += ", too few to hold any out of the fit"
        # Clips outside the fit are one more part, scored by the whole fit; they are swapped among themselves.
        parts = np.array([part_of.get(int(clip), -1) for clip in use])
        fits = [*(held_out or [fit] * FOLDS), fit]
        positive, negative = pair_scores(reader, use, np.where(parts < 0, FOLDS, parts), fits)
        if not len(positive["5"]) or not len(negative["5"]):
            log.warning("corpus %s has no swapped pair with face and voice: its similarities stay uncalibrated", corpus)
            continue
        maps = {w: similarity.fit_logistic(positive[w], negative[w]) for w in similarity.WINDOWS}
        fit = fit.calibrated(corpus, maps)
        note["calibrated_on"][corpus] = {"clips": len(use), "which": on}
        note["auc"][corpus] = {w: _round(similarity.auc(positive[w], negative[w])) for w in similarity.WINDOWS}
        note["brier"][corpus] = {
            w: _round(
                similarity.brier(similarity.logistic(positive[w], *maps[w]), similarity.logistic(negative[w], *maps[w]))
            )
            for w in similarity.WINDOWS
        }
    return fit, note


def pair_scores(
    reader: store.Reader, clips: np.ndarray, parts: np.ndarray, fits: Sequence[Fit]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Uncalibrated scores of own pairs and of swaps within each part, by window: of frames with face and voice, or of clips."""
    positive: dict[str, list[np.ndarray]] = {w: [] for w in similarity.WINDOWS}
    negative: dict[str, list[np.ndarray]] = {w: [] for w in similarity.WINDOWS}
    for part in np.unique(parts):
        fit, members = fits[int(part)], clips[parts == part]
        lips, sound, flags = [], [], []
        for clip in members:
            got = _read(reader, int(clip))
            lips.append(similarity.project_vsr(got["vsr"], fit))
            sound.append(similarity.project_asr(got["asr"], fit))
            flags.append(got["flags"])
        step = max(1, len(members) // 2)
        for i in range(len(members)):
            for j, into in ((i, positive), ((i - step) % len(members), negative)):
                if j == i and into is negative:
                    continue
                length = min(len(lips[i]), len(sound[j]))
                mask = _mask(flags[i][:length], flags[j][:length])
                if not mask.any():
                    continue
                for w in similarity.WINDOWS:
                    s = similarity.scores(lips[i][:length], sound[j][:length], fit, w, mask)
                    into[w].append(s[:1] if w == "clip" else s[mask])
    return _joined(positive), _joined(negative)


def label_shard(root: Path, shard: int) -> int:
    """Write the shard's projections and soft labels whole, from its embeddings and the stored fit; clips labelled."""
    reader, writer = store.open(root), store.Writer.open(root)
    fit = reader.fit
    if fit is None:
        raise store.StoreError(f"{root} has no fit to label with")
    start = shard * layout.SHARD
    arrays = writer.blank_shard([*layout.PROJECTIONS, "similarity"])
    clips = clips_of_shard(reader.clips, shard)
    for clip in clips:
        got = _read(reader, clip)
        v = half(similarity.project_vsr(got["vsr"], fit))
        a = half(similarity.project_asr(got["asr"], fit))
        corpus = str(reader.clips["corpus"][clip])
        label = similarity.compare(v, a, fit, 5, _mask(got["flags"], got["flags"]), corpus)
        # A clip longer than a shard is projected once for each of its shards: rare, and every shard stays one write.
        begin = int(reader.clips["offset"][clip]) - start
        rows = slice(max(begin, 0), min(begin + len(v), layout.SHARD))
        own = slice(rows.start - begin, rows.stop - begin)
        for name, values in (("vsr_projection", v), ("asr_projection", a), ("similarity", label.astype(np.float16))):
            arrays[name][rows] = values[own]
    writer.write_shard(shard, arrays)
    return len(clips)


def half(x: np.ndarray) -> np.ndarray:
    """Values as f2, held inside its range: an embedding far outside the fitted ones must not become infinite."""
    limit = float(np.finfo(np.float16).max)
    return np.clip(x, -limit, limit).astype(np.float16)


def in_order(function: Callable[..., T], jobs: Sequence[tuple[Any, ...]]) -> Iterator[T]:
    """A `Spread` that runs in this process."""
    return (function(*job) for job in jobs)


def _joined(lists: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate(values) if values else np.zeros(0) for name, values in lists.items()}


def _read(reader: store.Reader, clip: int) -> dict[str, np.ndarray]:
    return reader.frames(clip, 0, int(reader.clips["length"][clip]), ["vsr", "asr", "flags"])


def _mask(lips_flags: np.ndarray, sound_flags: np.ndarray) -> np.ndarray:
    """Frames that have a label: a face on the picture side, a voice on the sound side."""
    return (lips_flags & layout.FACE_DETECTED > 0) & (sound_flags & layout.VOICE_ACTIVE > 0)


def _sum(parts: Sequence[Moments | None]) -> Moments | None:
    found = [part for part in parts if part is not None]
    total = found[0] if found else None
    for part in found[1:]:
        assert total is not None
        total = total + part
    return total


def _fit_without(parts: Sequence[Moments | None], part: int, context: int) -> Fit | None:
    rest = _sum([m for k, m in enumerate(parts) if k != part])
    return similarity.fit_cca(rest, context) if rest is not None and rest.count > similarity.DIMS else None


def _width(reader: store.Reader, side: str) -> int:
    return int(reader.attrs["teachers"][side]["dim"])


def _round(x: float) -> float:
    return round(float(x), 4)
