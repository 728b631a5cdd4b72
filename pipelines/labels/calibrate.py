"""Turns a fit's scores into probabilities: a logistic map for each corpus and window length, from the corpus's pairs
and swaps.

Maps, AUC, Brier scores and offsets use clips that the fit has not seen, if there are any; the attributes say which.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import store
from concord.text import counted
from pipelines.labels import projection
from store import layout, similarity
from store import seen as seen_clips
from store.place import Place
from store.similarity import Fit, grounds

log = logging.getLogger(__name__)

CLIPS = 500  # clips of a corpus for its calibration, evenly spaced: enough for a map of two numbers


@dataclass(frozen=True)
class Pairs:
    """Uncalibrated scores by window of own pairs (`positive`) and of swaps (`negative`): of frames with face and voice,
    or of clips; and the offset at which the sound of each clip fits its lips best."""

    positive: dict[str, np.ndarray]
    negative: dict[str, np.ndarray]
    offsets: list[similarity.Offset]


@dataclass(frozen=True)
class Seen:
    """The training data of a fit: the part of each clip (by row), and the fit that evaluates each part, None if there
    is none. A clip that the fit never saw is evaluated by the fit itself."""

    part_of: dict[int, int]
    judges: list[Fit | None]


NOTHING = Seen({}, [])  # none of these clips


@dataclass(frozen=True)
class _Chosen:
    """Clips for the calibration of a corpus, the part of each, and a description of the clips."""

    clips: np.ndarray
    parts: np.ndarray
    kind: str


def calibrate(
    root: Place, fit: Fit, note: dict[str, Any], seen: Seen | None, corpora: Sequence[str]
) -> tuple[Fit, dict[str, Any]]:
    """The fit with a map for each of `corpora` that has swaps, and `note` with their figures.

    `seen` is None for a fit that was learned elsewhere. A clip is scored by the fit of other parts; one without such a
    fit is left out.
    """
    reader = store.open(root)
    note = {**note, "calibrated_on": dict(note.get("calibrated_on", {}))}
    for name in ("auc", "brier", "offset"):
        note[name] = dict(note.get(name, {}))
    judges = (seen or NOTHING).judges
    for corpus in corpora:
        chosen = _chosen(reader, corpus, fit, seen or NOTHING)
        if chosen is None:
            log.warning("corpus %s has no two clips to swap: its similarities stay uncalibrated", corpus)
            continue
        log.info("calibrating on %s of %s", counted(len(chosen.clips), "clip"), corpus)
        # Clips outside the fit form another part, scored by the whole fit; they are swapped with each other.
        pairs = pair_scores(reader, chosen.clips, chosen.parts, [*(judge or fit for judge in judges), fit])
        if not len(pairs.positive["5"]) or not len(pairs.negative["5"]):
            log.warning("corpus %s has no swapped pair with face and voice: its similarities stay uncalibrated", corpus)
            continue
        if fit.kind != "posterior":  # the paper's number is not calibrated
            maps = {w: similarity.fit_logistic(pairs.positive[w], pairs.negative[w]) for w in similarity.WINDOWS}
            fit = fit.calibrated(corpus, maps)
            basis = _grounds(reader, chosen, pairs, fit, note, seen)
            told = {"clips": len(chosen.clips), "which": chosen.kind, "seen": _num_seen(reader, chosen, judges, fit)}
            note["calibrated_on"][corpus] = {**told, **basis.told()}
        _judge(note, corpus, pairs, fit)
    return fit, note


def _chosen(reader: store.Reader, corpus: str, fit: Fit, seen: Seen) -> _Chosen | None:
    """The best kind of clips with at least two that can be swapped; None if there is none."""
    c = reader.clips
    mine = (c["done"] == 1) & (c["corpus"].astype(str) == corpus)
    for kind, which in (
        ("real train and val clips", mine & (c["label"] == 0) & (c["split"].astype(str) != "test")),
        ("unlabelled clips", mine & (c["label"] != 1) & (c["split"].astype(str) != "test")),
        ("test clips, for want of others", mine & (c["label"] != 1)),
        ("forged clips, for want of others", mine),
    ):
        rows = np.flatnonzero(which)
        parts = np.array([seen.part_of.get(int(clip), len(seen.judges)) for clip in rows], int)
        clips, parts = judged(rows, parts, [*seen.judges, fit])
        if len(clips) >= 2:
            few = np.unique(np.linspace(0, len(clips) - 1, min(len(clips), CLIPS)).round().astype(int))
            if len(seen.judges) == 1 and (parts[few] == 0).any():
                kind += ", too few to hold any out of the fit"
            return _Chosen(clips[few], parts[few], kind)
    return None


def _num_seen(reader: store.Reader, chosen: _Chosen, judges: Sequence[Fit | None], fit: Fit) -> int | None:
    """Number of a corpus's clips whose scores are by a fit that has learned from them; None if that is not recorded.

    Of several parts, each is scored by a fit that learned from the others; a single part by the fit that learned from it.
    """
    outside = chosen.clips[chosen.parts >= len(judges)]
    found = seen_clips.known(fit.seen, reader, outside)
    if found is None and len(outside):
        return None
    own = int((chosen.parts < len(judges)).sum()) if len(judges) == 1 else 0
    return own + (int(found.sum()) if found is not None else 0)


def _grounds(
    reader: store.Reader, chosen: _Chosen, pairs: Pairs, fit: Fit, note: dict[str, Any], seen: Seen | None
) -> grounds.Grounds:
    """The basis of a corpus's map: its real clips, their people, and how often real clips would be called fake."""
    corpus = str(reader.clips["corpus"][chosen.clips[0]])
    real = chosen.clips[reader.clips["label"][chosen.clips] == 0]
    own = similarity.probability(pairs.positive["clip"], fit, "clip", corpus)
    return grounds.Grounds(len(real), *_speakers(reader, real, note, seen), grounds.alarms(1 - own))


def _judge(note: dict[str, Any], corpus: str, pairs: Pairs, fit: Fit) -> None:
    """Enter AUC, Brier scores and offsets of a corpus into the note."""
    positive, negative = pairs.positive, pairs.negative
    note["auc"][corpus] = {w: rounded(similarity.auc(positive[w], negative[w])) for w in similarity.WINDOWS}
    note["brier"][corpus] = {
        w: rounded(similarity.brier(*(similarity.probability(s[w], fit, w, corpus) for s in (positive, negative))))
        for w in similarity.WINDOWS
    }
    frames = np.array([offset.frames for offset in pairs.offsets])
    note["offset"][corpus] = {
        "median": float(np.median(frames)),
        "within_2": rounded((np.abs(frames - np.median(frames)) <= 2).mean()),
        "margin": rounded(np.median([offset.margin for offset in pairs.offsets])),
    }


def _speakers(
    reader: store.Reader, real: np.ndarray, note: dict[str, Any], seen: Seen | None
) -> tuple[int | None, int | None]:
    """People in the clips `real`, and those of them that were unknown to the fits that evaluated their clips.

    A fit from elsewhere may have learned from all clips of the corpora that it names, or from any if it names none.
    """
    names = grounds.people(reader.clips["identities"])
    if seen is None:
        learned = note.get("fitted_on")
        corpora = learned.get("corpora") if learned else []
        of = zip(names, reader.clips["corpus"].astype(str), strict=True)
        taught = {name for name, corpus in of if corpora is None or corpus in corpora}
        return grounds.count([names[k] for k in real], taught)
    parts: dict[str, set[int]] = {}
    for clip, part in seen.part_of.items():
        parts.setdefault(names[clip], set()).add(part)
    outside = {names[k] for k in real if int(k) not in seen.part_of}  # evaluated by the whole fit
    taught = {name for name, own in parts.items() if len(own) > 1 or len(seen.judges) == 1 or name in outside}
    return grounds.count([names[k] for k in real], taught)


def judged(clips: np.ndarray, parts: np.ndarray, judges: Sequence[Fit | None]) -> tuple[np.ndarray, np.ndarray]:
    """The clips that some fit can evaluate, and their parts."""
    keep = np.array([judges[part] is not None for part in parts], bool)
    return clips[keep], parts[keep]


def pair_scores(reader: store.Reader, clips: np.ndarray, parts: np.ndarray, fits: Sequence[Fit]) -> Pairs:
    """Scores of own pairs and of swaps within each part, with that part's member of `fits`."""
    positive: dict[str, list[np.ndarray]] = {w: [] for w in similarity.WINDOWS}
    negative: dict[str, list[np.ndarray]] = {w: [] for w in similarity.WINDOWS}
    offsets = []
    for part in np.unique(parts):
        fit, members = fits[int(part)], clips[parts == part]
        to_vsr, to_asr = projection.maps(fit)
        lips, sound, flags = [], [], []
        for clip in members:
            got = embeddings(reader, int(clip))
            lips.append(to_vsr(got["vsr"], got["flags"]))
            sound.append(to_asr(got["asr"], got["flags"]))
            flags.append(got["flags"])
        step = max(1, len(members) // 2)
        for i in range(len(members)):
            if (mask := layout.labelled(flags[i], flags[i])).any():
                offsets.append(similarity.best_offset(lips[i], sound[i], fit, mask, flags[i] & layout.VOICE_ACTIVE > 0))
            for j, into in ((i, positive), ((i - step) % len(members), negative)):
                if j == i and into is negative:
                    continue
                length = min(len(lips[i]), len(sound[j]))
                mask = layout.labelled(flags[i][:length], flags[j][:length])
                if not mask.any():
                    continue
                for w in similarity.WINDOWS:
                    s = similarity.scores(lips[i][:length], sound[j][:length], fit, w, mask)
                    into[w].append(s[:1] if w == "clip" else s[mask])
    return Pairs(_joined(positive), _joined(negative), offsets)


def _joined(lists: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate(values) if values else np.zeros(0) for name, values in lists.items()}


def embeddings(reader: store.Reader, clip: int) -> dict[str, np.ndarray]:
    """vsr, asr and flags of a whole clip."""
    return reader.frames(clip, 0, int(reader.clips["length"][clip]), ["vsr", "asr", "flags"])


def rounded(x: float) -> float:
    """For the attributes."""
    return round(float(x), 4)
