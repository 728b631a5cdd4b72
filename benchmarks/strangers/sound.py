"""Own sound against the sound of others and against the own sound at other times: per frame, over a second, over the clip.

The others are real clips of the same corpus, chosen by a seed: of another person where the list names people, else of
somebody unknown, and only if there is nobody else of the same person.

All pairs of one kind are compared at once: their frames stand one after the other, and windows are cut at the ends of each.
The numbers are those of `store.similarity.scores` and `probability`, with the map that `predict` would take; where it would
move the sound of any video, all pairs are also scored with it moved (`in_time`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.strangers import figures
from benchmarks.strangers.figures import Values
from benchmarks.strangers.listed import Listed
from store import similarity
from store.similarity import Fit
from student.predict.evidence import Evidence

SHIFTS = (4, 8)  # frames, both ways
OTHERS = 5  # sounds of others for each clip
WHO = ("another person", "unknown", "the same person")
ROWS = 200_000  # frames compared at once
Pair = tuple[int, int, int]  # lips of a clip with the sound of a clip, that many frames earlier


@dataclass(frozen=True)
class Partners:
    """For each clip [n] the numbers of those whose sound it gets, the first of which is used for decisions; and how many
    pairs there are of each kind in WHO."""

    of: list[list[int]]
    who: dict[str, int]


def partners(listed: Sequence[Listed], most: int, seed: int) -> Partners:
    """At most `most` partners for each of the clips, which are all real. The choice depends on the seed and on the clip's place
    alone."""
    corpora: dict[str, list[int]] = defaultdict(list)
    for k, one in enumerate(listed):
        corpora[one.row.corpus].append(k)
    found: list[list[int]] = [[] for _ in listed]
    who: Counter[str] = Counter(dict.fromkeys(WHO, 0))
    for mine in corpora.values():
        places = np.array(mine)
        known = np.array([listed[k].is_known for k in mine])
        person = np.unique([listed[k].person for k in mine], return_inverse=True)[1]
        for n, k in enumerate(mine):
            rest = places != k
            other = rest & known & (person != person[n]) if known[n] else np.zeros(len(mine), bool)
            unknown = rest & (~known | (not known[n])) & ~other
            for kind, some in zip(WHO, (other, unknown, rest), strict=True):
                if some.any():
                    rng = np.random.default_rng([seed, k])
                    found[k] = rng.permutation(places[some])[:most].tolist()
                    who[kind] += len(found[k])
                    break
    return Partners(found, dict(who))


@dataclass(frozen=True)
class Scored:
    """Scores f8 [n] of pairs of one kind by window, and the clip whose lips they are of, int [n]: of each frame with face and
    voice, or of each pair for the window "clip"."""

    score: dict[str, np.ndarray]
    clip: dict[str, np.ndarray]


def kinds(count: int, partners: Sequence[Sequence[int]]) -> dict[str, list[Pair]]:
    """All pairs of `count` clips by kind: "own", "others", "shift_4", "shift_8"."""
    every = range(count)
    return {
        "own": [(i, i, 0) for i in every],
        "others": [(i, j, 0) for i in every for j in partners[i]],
        **{f"shift_{s}": [(i, i, sign * s) for i in every for sign in (1, -1)] for s in SHIFTS},
    }


def scored(evidence: Sequence[Evidence], pairs: Sequence[Pair], fit: Fit) -> Scored:
    """Scores of those pairs of lips and sound; a pair without a frame with face and voice has none."""
    score: dict[str, list[np.ndarray]] = {w: [] for w in similarity.WINDOWS}
    clip: dict[str, list[np.ndarray]] = {w: [] for w in similarity.WINDOWS}
    for some in _parts(evidence, pairs):
        lips, sound, mask, lengths = _laid(evidence, some)
        if not len(mask):
            continue
        agreement = similarity.scores(lips, sound, fit, 1).astype(np.float64)
        number = np.repeat(np.arange(len(lengths)), lengths)
        who = np.array([i for i, _, _ in some])
        for w in similarity.WINDOWS:
            if w == "clip":
                total = np.bincount(number, agreement * mask, len(lengths))
                kept = np.bincount(number, mask, len(lengths))
                score[w].append(total[kept > 0] / kept[kept > 0])
                clip[w].append(who[kept > 0])
            else:
                score[w].append(_windowed(agreement, mask, lengths, (int(w) - 1) // 2))
                clip[w].append(who[number[mask]])
    return Scored({w: _joined(x, float) for w, x in score.items()}, {w: _joined(x, int) for w, x in clip.items()})


def in_time(evidence: Sequence[Evidence], pairs: Sequence[Pair], fit: Fit, within: int) -> list[Pair]:
    """The same pairs, the sound of each moved by up to `within` frames to where it fits best over the clip, as `predict` moves
    it; ties go to the smaller offset."""
    offsets = sorted(range(-within, within + 1), key=abs)
    if len(offsets) == 1:
        return list(pairs)
    means = np.stack([_clip_means(evidence, [(i, j, s + by) for i, j, s in pairs], fit) for by in offsets])
    best = np.nan_to_num(means, nan=-np.inf).argmax(0)
    return [(i, j, s + offsets[k]) for (i, j, s), k in zip(pairs, best.tolist(), strict=True)]


def _clip_means(evidence: Sequence[Evidence], pairs: Sequence[Pair], fit: Fit) -> np.ndarray:
    """Mean agreement f8 [pairs] over the frames with face and voice, NaN without any."""
    found = [np.zeros(0)]
    for some in _parts(evidence, pairs):
        lips, sound, mask, lengths = _laid(evidence, some)
        agreement = similarity.scores(lips, sound, fit, 1).astype(np.float64) if len(mask) else np.zeros(0)
        number = np.repeat(np.arange(len(lengths)), lengths)
        total, kept = np.bincount(number, agreement * mask, len(some)), np.bincount(number, mask, len(some))
        found.append(np.where(kept > 0, total / np.maximum(kept, 1), np.nan))
    return np.concatenate(found)


def _parts(evidence: Sequence[Evidence], pairs: Sequence[Pair]) -> Iterable[list[Pair]]:
    """The pairs in lists of about ROWS frames."""
    part: list[Pair] = []
    rows = 0
    for pair in pairs:
        part.append(pair)
        rows += evidence[pair[0]].clip.num_frames
        if rows > ROWS:
            yield part
            part, rows = [], 0
    if part:
        yield part


def _laid(evidence: Sequence[Evidence], pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lips and sound [frames, K] of all pairs one after the other, which frames have face and voice, and each pair's length."""
    lips, sound, mask, lengths = [], [], [], []
    for i, j, shift in pairs:
        seen, heard = evidence[i], evidence[j]
        rows, other, _ = similarity.shifted(seen.clip.num_frames, heard.clip.num_frames, shift)
        lips.append(seen.vsr_projection[rows])
        sound.append(heard.asr_projection[other])
        mask.append(seen.evident[rows] & heard.voice[other])
        lengths.append(len(mask[-1]))
    return np.concatenate(lips), np.concatenate(sound), np.concatenate(mask), np.array(lengths)


def _windowed(agreement: np.ndarray, mask: np.ndarray, lengths: np.ndarray, half: int) -> np.ndarray:
    """Mean of the masked frames within `half` frames of each masked frame, within its own pair."""
    stop = np.repeat(np.cumsum(lengths), lengths)
    start = np.repeat(np.cumsum(lengths) - lengths, lengths)
    t = np.flatnonzero(mask)
    first, last = np.maximum(t - half, start[t]), np.minimum(t + half + 1, stop[t])
    total, kept = np.r_[0.0, np.cumsum(agreement * mask)], np.r_[0, np.cumsum(mask)]
    mean: np.ndarray = (total[last] - total[first]) / (kept[last] - kept[first])
    return mean


def _joined(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


@dataclass(frozen=True)
class Sounds:
    """Scores of all kinds of pairs of real clips; the corpus and the person of each clip, int [clips]; fit and corpus of the
    map that turns scores into probabilities."""

    found: dict[str, Scored]
    person: np.ndarray
    fit: Fit
    map_of: str | None

    def told(self, chosen: np.ndarray) -> dict[str, Any]:
        """AUC of own sound and Brier score against each other kind, by window, over the clips `chosen` bool [clips]."""
        told: dict[str, Any] = {}
        for w in similarity.WINDOWS:
            own, told[w] = self._values("own", w, chosen), {}
            for kind in self.found:
                if kind != "own":
                    other = self._values(kind, w, chosen)
                    figure = figures.auc(own, other).told("own", "against")
                    told[w][kind] = {**figure, "brier": figures.brier(self._together(own, w), self._together(other, w))}
            told[w]["brier"] = told[w]["others"]["brier"]
        return told

    def _values(self, kind: str, window: str, chosen: np.ndarray) -> Values:
        found = self.found[kind]
        clip = found.clip[window]
        return Values(found.score[window], self.person[clip]).of(chosen[clip])

    def _together(self, values: Values, window: str) -> np.ndarray:
        return similarity.probability(values.value, self.fit, window, self.map_of).astype(np.float64)
