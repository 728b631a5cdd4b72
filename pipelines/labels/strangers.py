"""Measures what strangers score: people are dealt into folds, and a fit learned without a fold scores its people.

Own pairs are clips with their own sound; swaps are their lips with the sound of other people of the fold. Scores are
those of whole clips, as `predict` compares them, by length: shorter pieces are cut from longer clips. The sound of a
piece, own or not, may be moved by up to WITHIN frames to where it fits best (`store.similarity.strangers`). Where too few
people have clips of a length, up to JOINED frames, a person's clips are joined. What a person's clips score is weighed
as one (`store.similarity.limits`).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import store
from pipelines.labels import projection
from pipelines.labels.calibrate import embeddings
from pipelines.labels.leave_out import Dealt
from pipelines.labels.projection import half
from pipelines.workers.chain import Spread
from store import layout, similarity
from store.place import Place
from store.similarity import Fit
from store.similarity.limits import Scores
from store.similarity.strangers import NAME, PEOPLE, WITHIN, Length, Strangers

log = logging.getLogger(__name__)

LENGTHS = (15, 20, 25, 50, 75, 125, 250, 500, 1000)  # frames with face and voice
JOINED = 125  # frames: no longer pieces are joined of a person's clips
PIECES = 3  # of a clip, at most, at each length
CLIPS = 30  # of a person, at most
SWAPS = 2  # of each clip, with the sounds of two other people
MOST = 1500  # frames used of a clip
BUDGET = 400_000  # frames of a fold: 100 MB of projections
WINDOWS = ("5", "25")  # shorter than a clip, whose maps are measured too
EVERY = 40  # frames of a clip that these maps use, at most


@dataclass(frozen=True)
class Heard:
    """One clip as a fit of other people hears it.

    Agreement f4 [offsets, frames] of each frame with face and voice, at each offset within WITHIN, NaN where the sound at that
    offset has no voice: with its own sound, and with the sound of each of up to SWAPS others; and by window the scores of
    some frames, own and swapped, where the whole clip fits best.
    """

    unit: str
    own: np.ndarray
    swaps: list[np.ndarray]
    windows: dict[str, tuple[np.ndarray, np.ndarray]]


def measure(root: Place, spread: Spread, dealt: Dealt, fits: Sequence[Fit | None]) -> dict[str, Any]:
    """What the left-out people (or corpora) of each fold score by its member of `fits`: the entry for the attributes,
    empty if too few of them have enough frames with face and voice."""
    jobs = []
    for fold, fit in enumerate(fits):
        clips, units = dealt.judged(fold)
        if fit is not None and len(clips) > 1:
            jobs.append((root, fit, clips, units, dealt.how))
    heard = [one for part in spread(hear, jobs) for one in part]
    lengths = [length for frames in LENGTHS if (length := _length(heard, frames, dealt.least))]
    if not lengths:
        return {}
    corpora = sorted(
        {str(name) for name in store.open(root).clips["corpus"][dealt.clips[[bool(u) for u in dealt.units]]]}
    )
    found = Strangers(dealt.how, dealt.guessed, tuple(corpora), tuple(lengths), _maps(heard), WITHIN)
    log.info("own sound against another's, for strangers: %s", found.line)
    return {NAME: found.told()}


def hear(root: Place, fit: Fit, clips: list[int], units: list[str], how: str) -> list[Heard]:
    """A task: the chosen clips of a fold, each with its own sound and with others'."""
    reader = store.open(root)
    to_vsr, to_asr = projection.maps(fit)
    chosen = _chosen(reader, clips, units)
    lips, sound, flags = [], [], []
    for clip, _ in chosen:
        got = {name: rows[:MOST] for name, rows in embeddings(reader, clip).items()}
        lips.append(half(to_vsr(got["vsr"], got["flags"])))
        sound.append(half(to_asr(got["asr"], got["flags"])))
        flags.append(got["flags"])
    who = [unit if how == PEOPLE else str(clip) for clip, unit in chosen]  # in one corpus, other clips
    found = []
    for i, others in enumerate(_partners(who, [int(layout.labelled(f, f).sum()) for f in flags])):
        pairs = [_compared(lips[i], sound[j], fit, flags[i], flags[j]) for j in (i, *others)]
        swapped = {w: np.concatenate([[], *(windows[w] for _, windows in pairs[1:])]) for w in WINDOWS}
        own = {w: (pairs[0][1][w], swapped[w]) for w in WINDOWS}
        found.append(Heard(chosen[i][1], pairs[0][0], [by_frame for by_frame, _ in pairs[1:]], own))
    return found


def _compared(
    lips: np.ndarray, sound: np.ndarray, fit: Fit, seen: np.ndarray, heard: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Lips [n, K] of a clip with the flags `seen` [n] and a sound [m, K] with the flags `heard` [m]: agreement by offset, and
    scores of some frames by window, as in `Heard`."""
    offsets = range(-WITHIN, WITHIN + 1)
    cuts = [similarity.shifted(len(lips), len(sound), offset)[:2] for offset in offsets]
    masks = [layout.labelled(seen[a], heard[b]) for a, b in cuts]
    by_offset = np.full((len(offsets), min(len(lips), len(sound))), np.nan, np.float32)
    for line, (a, b), mask in zip(by_offset, cuts, masks, strict=True):
        line[a][mask] = similarity.scores(lips[a], sound[b], fit, 1)[mask]
    by_offset = by_offset[:, masks[WITHIN]]
    best = int(np.argmax(_means(by_offset)))
    (a, b), mask = cuts[best], masks[best]
    some = np.flatnonzero(mask)
    some = some[np.linspace(0, len(some) - 1, min(EVERY, len(some))).round().astype(int)]
    return by_offset, {w: similarity.scores(lips[a], sound[b], fit, w, mask)[some] for w in WINDOWS}


def _means(by_offset: np.ndarray) -> np.ndarray:
    """Mean agreement [offsets] over frames; an offset without voice is the worst."""
    known = np.isfinite(by_offset)
    count = known.sum(1)
    total = np.where(known, by_offset, 0.0).sum(1, dtype=np.float64)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), -1.0))


def _chosen(reader: store.Reader, clips: list[int], units: list[str]) -> list[tuple[int, str]]:
    """Up to CLIPS clips of each unit, evenly spaced, a round of everybody at a time, until BUDGET is spent."""
    own: dict[str, list[int]] = defaultdict(list)
    for clip, unit in zip(clips, units, strict=True):
        own[unit].append(clip)
    picked = {
        unit: [mine[k] for k in np.unique(np.linspace(0, len(mine) - 1, min(len(mine), CLIPS)).round().astype(int))]
        for unit, mine in own.items()
    }
    found, frames = [], 0
    for turn in range(CLIPS):
        for unit, mine in picked.items():
            if turn < len(mine) and (frames < BUDGET or turn == 0):
                found.append((mine[turn], unit))
                frames += min(int(reader.clips["length"][mine[turn]]), MOST)
    return found


def _partners(who: Sequence[str], frames: Sequence[int]) -> list[list[int]]:
    """Up to SWAPS others for each clip, each of another person, about as long as it is."""
    order = sorted(range(len(who)), key=lambda k: (-int(np.searchsorted(LENGTHS, frames[k], "right")), k))
    found: list[list[int]] = [[] for _ in who]
    for place, k in enumerate(order):
        met = {who[k]}
        for step in range(1, len(order)):
            other = order[(place + step) % len(order)]
            if who[other] not in met:
                found[k].append(other)
                met.add(who[other])
            if len(found[k]) == SWAPS:
                break
    return found


def _length(heard: Sequence[Heard], frames: int, least: int) -> Length | None:
    """What clips of so many frames score, or clips joined to so many; None if too few units have them."""
    for joined in (False, True) if frames <= JOINED else (False,):
        own = _pieces(heard, frames, [[one.own] for one in heard], joined)
        swaps = _pieces(heard, frames, [one.swaps for one in heard], joined)
        if own and swaps and min(own.units, swaps.units) >= least:
            return Length(frames, own, swaps, joined)
    return None


def _pieces(heard: Sequence[Heard], frames: int, series: Sequence[list[np.ndarray]], joined: bool) -> Scores | None:
    """Mean agreement of pieces of so many frames at their best offset, from each clip's series or those of a unit joined."""
    if joined:
        by_unit: dict[str, list[np.ndarray]] = defaultdict(list)
        for one, own in zip(heard, series, strict=True):
            by_unit[one.unit] += own
        parts = [(unit, [np.concatenate(own, axis=1)], len(own)) for unit, own in by_unit.items() if own]
    else:
        parts = [(one.unit, own, 1) for one, own in zip(heard, series, strict=True)]
    scores, units, clips = [], [], 0
    for unit, own, of in parts:
        reach = [line for line in own if line.shape[1] >= frames]
        clips += of * bool(reach)
        for agreement in reach:
            length = agreement.shape[1]
            count = min(PIECES * of, length // frames)
            for start in np.linspace(0, length - frames, count).round().astype(int):
                scores.append(float(_means(agreement[:, start : start + frames]).max()))
                units.append(unit)
    return Scores.of(scores, units, clips) if scores else None


def _maps(heard: Sequence[Heard]) -> dict[str, tuple[float, float]]:
    found = {}
    for w in WINDOWS:
        own, swapped = (np.concatenate([[], *(one.windows[w][kind] for one in heard)]) for kind in (0, 1))
        if len(own) and len(swapped):
            found[w] = similarity.fit_logistic(own, swapped)
    return found
