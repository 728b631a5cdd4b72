"""Which of several faces a video's voice belongs to, by the teachers' similarity.

The motion of lips leaves several faces where more than one person moves them. Each is compared with the voice at its best
offset; the one that fits clearly better than the others is the speaker, and is judged as if it were alone. Measured on
pairs of a speaker and another person who talks, with the fit in the package: of 301 pairs from GRID all are right; of 406
from other videos 19 % are right, .2 % wrong and the rest not decided.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.media.facts import Fact
from store import similarity
from store.similarity import Fit

if TYPE_CHECKING:
    from student.predict.evidence import Evidence

FITS_BETTER = 0.15  # of the score at the best offset, above all other faces
MIN_FRAMES = 25  # with face and voice: with less a face is not compared


def settled(evidence: Evidence, fit: Fit) -> Evidence:
    """The evidence with the face that fits the voice clearly better than the others; if none does, the evidence as it was,
    with `unsettled` saying so. Evidence with one face stays as it is."""
    faces = [one for one in (evidence, *evidence.others) if int((one.face & one.voice).sum()) >= MIN_FRAMES]
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
