"""How well lips and voice of a video agree: frame by frame, over the whole clip, at other offsets; and which of several
faces the voice belongs to.

The motion of lips leaves several faces where more than one person moves them. Each is compared with the voice at its best
offset; the one that fits clearly better than the others is the speaker, and is judged as if it were alone. Measured on
pairs of a speaker and another person who talks, with the fit of one speaker: of 301 pairs from GRID all are right; of 406
from other videos 19 % are right, .2 % wrong and the rest not decided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pipelines.media.facts import Fact
from store import similarity
from store.similarity import Fit, Offset

if TYPE_CHECKING:
    from student.predict.evidence import Evidence

MIN_OFFSET = 3  # from this many frames on it is out of sync; 1 % of real clips are that far off
MIN_MARGIN = 0.25  # of the score at the best offset above all others; real clips have at least .32, 98 % of swaps less
FITS_BETTER = 0.15  # of the score at the best offset, above all other faces
LEAST_SEEN = 25  # with face and voice: with less a face is not compared


@dataclass(frozen=True)
class Curves:
    """Similarity f4 [frames] over 5 frames and over a second, and where it is valid, bool [frames]."""

    near: np.ndarray
    second: np.ndarray
    known: np.ndarray


@dataclass(frozen=True)
class Pair:
    """Lips and sound of a whole clip: their similarity in the file; the offset at which the sound fits best, and the
    similarity there; the same of the offsets that are allowed without a word (`near`); and the frames compared."""

    similarity: float
    offset: Offset
    at_best: float
    near: Offset
    at_near: float
    frames: int

    @property
    def is_elsewhere(self) -> bool:
        return fits_elsewhere(self.offset, self.at_best)

    @property
    def shift(self) -> int:
        """Frames by which the sound is moved before it is judged."""
        return self.offset.frames if self.is_elsewhere else self.near.frames

    @property
    def score(self) -> float:
        """The uncalibrated score, with the sound where it is judged."""
        return self.offset.best if self.is_elsewhere else self.near.best

    @property
    def probability(self) -> float:
        """Probability of fake by the teachers, with the sound where it is judged."""
        return 1 - (self.at_best if self.is_elsewhere else self.at_near)


def curves(evidence: Evidence, fit: Fit, corpus: str | None, shift: int = 0) -> Curves:
    """The curves of a clip whose sound is moved by `shift` frames."""
    near, known = agreement(evidence, fit, corpus, 5, shift)
    return Curves(near, agreement(evidence, fit, corpus, 25, shift)[0], known)


def compared(evidence: Evidence, fit: Fit, corpus: str | None, known: np.ndarray, within: int = 0) -> Pair:
    """Lips and sound of the whole clip, on the frames that are known; the sound may be up to `within` frames off."""
    pair = evidence.vsr_projection, evidence.asr_projection
    whole = float(similarity.compare(*pair, fit, "clip", known, corpus)[0])
    offset, near = (
        similarity.best_offset(*pair, fit, evidence.evident, evidence.voice, limit)
        for limit in (similarity.MAX_OFFSET, within)
    )
    at_best, at_near = (
        float(similarity.probability(np.array([found.best]), fit, "clip", corpus)[0]) for found in (offset, near)
    )
    return Pair(whole, offset, at_best, near, at_near if near.frames else whole, int(known.sum()))


def agreement(
    evidence: Evidence, fit: Fit, corpus: str | None, window: int, shift: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Similarity f4 [frames] of each frame's sound with the lips `shift` frames later, and where both exist, bool
    [frames]; elsewhere the similarity has no meaning."""
    frames = len(evidence.face)
    value, known = np.zeros(frames, np.float32), np.zeros(frames, bool)
    lips, sound, _ = similarity.shifted(frames, frames, shift)
    known[sound] = evidence.evident[lips] & evidence.voice[sound]
    pair = evidence.vsr_projection[lips], evidence.asr_projection[sound]
    value[sound] = similarity.compare(*pair, fit, window, known[sound], corpus)
    return value, known


def out_of_sync(offset: Offset, at_best: float) -> bool:
    """Whether sound and lips agree well, but at another offset than the file's, so far off that people notice."""
    return abs(offset.frames) >= MIN_OFFSET and fits_elsewhere(offset, at_best)


def fits_elsewhere(offset: Offset, at_best: float) -> bool:
    """Whether sound and lips clearly agree well at another offset than the file's; `at_best` as in `doubt`."""
    return offset.frames != 0 and offset.margin >= MIN_MARGIN and at_best >= 0.5


def settled(evidence: Evidence, fit: Fit) -> Evidence:
    """The evidence with the face that fits the voice clearly better than the others; if none does, the evidence as it was,
    with `unsettled` saying so. Evidence with one face stays as it is."""
    faces = [one for one in (evidence, *evidence.others) if int((one.face & one.voice).sum()) >= LEAST_SEEN]
    if not evidence.others or not faces:
        return evidence
    scores = [_fits(one, fit) for one in faces]
    if not all(math.isfinite(score) for score in scores):
        return evidence  # no answer is given for such numbers
    order = sorted(range(len(faces)), key=lambda i: -scores[i])
    if len(faces) > 1 and scores[order[0]] - scores[order[1]] < FITS_BETTER:
        return replace(evidence, unsettled=f"{1 + len(evidence.others)} faces, none fits the voice clearly better")
    which = "the one that fits the voice clearly better was taken"
    facts = [_said(fact, which) if fact.kind == "several_faces" else fact for fact in evidence.facts]
    return replace(faces[order[0]], facts=tuple(facts), words=evidence.words)


def _fits(evidence: Evidence, fit: Fit) -> float:
    lips, sound = evidence.vsr_projection, evidence.asr_projection
    return similarity.best_offset(lips, sound, fit, evidence.face, evidence.voice).best


def _said(fact: Fact, which: str) -> Fact:
    """The fact with its end replaced."""
    return Fact(fact.kind, f"{fact.text.partition(';')[0]}; {which}")
