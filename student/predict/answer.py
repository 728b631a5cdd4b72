"""The answer for one video, from the teachers' evidence and the student's logit: a decision, or the reason why there is
none.

"Real" says that lips and voice agree, "fake" that they do not. There is no decision if too little is seen or heard, or
if the sound fits its lips well at another time: otherwise late sound alone would count as a forgery. There is also none
without a licence. For people whom a calibration has not seen, similarity is lower for reasons other than forgery: where
strangers were measured, the score is held against limits (`student.predict.ruling`), and lies between them or beyond;
where none were (`store.similarity.grounds`), there is a number that ranks but no verdict, also none on words. A number
that is not finite decides nothing. The limits below were set on 54 GRID clips that the fit had not learned from and
checked on 60 more (docs/predict.md). This module opens no file and computes no embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from store.layout import FPS
from store.similarity import Fit, Offset
from store.similarity.strangers import MAP
from student.predict.agreement import Curves, Pair, compared, curves, out_of_sync
from student.predict.records import (
    CANNOT_DECIDE,
    UNLICENSED,
    Answer,
    Calibration,
    HeardWord,
    Judged,
    Moment,
    Note,
    Passage,
    Ranking,
    SoundOffset,
    Teachers,
    rounded,
)
from student.predict.ruling import Decided

if TYPE_CHECKING:
    from student.predict.evidence import Evidence
    from teachers import ClipMedia
    from teachers.whisper.transcribe import Word

Judge = Callable[["ClipMedia", int], Judged]

MIN_FRAMES = 25  # with face and voice: one second; 1 to 2 % of such clips are wrong on GRID
MIN_MOVING = (
    0.5  # share of the frames with face and voice whose picture moves: a video is not judged by its smaller part
)
AGREES, DISAGREES = 0.7, 0.3  # mean similarity of a word's frames: 1 % of true words are below .3, 91 % of swapped ones
MIN_PASSAGE = 13  # shortest passage: frames with face and voice, half a second
PASSAGE_GAP = 12  # frames without face or voice that do not end a passage
REASONS = {
    "no_face": "no face",
    "mouth_only": "mouth only",
    "no_track": "no track",
    "no_audio": "no speech",
    "too_short": "too short",
    "not_finite": "not finite",
}  # the ledger's reasons; all others: unreadable
SEVERAL_FACES = "several faces"  # the reason if none of them fits the voice clearly better
MS = 1000 // FPS


def answer(
    evidence: Evidence, fit: Fit, corpus: str | None, calibration: Calibration, judge: Judge | None = None
) -> Answer:
    """The whole answer for one video; it does not depend on time or machine.

    `corpus` chooses the fit's calibration; `calibration` says on whom it was made and what it licenses, and has the limits
    for strangers; `judge` is the student's (`student.predict.basis`), None without one. Sound that clearly fits at another
    time is moved there before it is judged (by 120 ms and more there is no decision); where limits for strangers were
    measured so, by up to 80 ms also if it is not clear. Words, passages and `similarity_moved` are on the clock of the sound.
    """
    face, voice, evident = evidence.face, evidence.voice, evidence.evident
    within = 0
    if corpus == MAP and calibration.strangers is not None:
        within = calibration.strangers.within
        fit = calibration.strangers.calibrated(fit, int((evident & voice).sum()))
    here = curves(evidence, fit, corpus)
    pair = compared(evidence, fit, corpus, here.known, within) if here.known.any() else None
    shift = pair.shift if pair else 0
    moved = shift if pair and pair.is_elsewhere else 0  # a detector's limits are of sound as it is
    student = judge(evidence.clip, moved) if judge and here.known.any() else None
    theirs = pair.probability if pair else None
    fake = student.probability if student else theirs
    ranking = _ranking(student, theirs, by_student=judge is not None)
    reason, message = doubt(face, voice, evident, pair.offset if pair else None, pair.at_best if pair else None)
    if not reason and evidence.unsettled:
        reason, message = SEVERAL_FACES, evidence.unsettled
    limits = None
    decision = CANNOT_DECIDE
    if not reason:
        decided = _decided(pair, student, fake, ranking, calibration)
        decision, reason, message, limits = decided.decision, decided.reason, decided.message, decided.limits
    if student:
        probability = None if reason or not finite(fake) else rounded(student.probability)
        student = Judged(probability, rounded(student.logit), student.frames)
    there = curves(evidence, fit, corpus, shift) if shift else here
    judged = calibration.teachers
    return Answer(
        path=evidence.path,
        decision=decision,
        reason=reason,
        message=message,
        probability=None if reason else rounded(fake),
        ranking=ranking,
        rests_on="student" if judge else "teachers",
        calibration=calibration,
        limits=limits,
        student=student,
        teachers=Teachers(rounded(pair.similarity) if pair else None, rounded(theirs) if judged else None),
        duration=len(face) / FPS,
        face_share=rounded(face.mean()),
        held_share=rounded((face & ~evident).mean()),
        voice_share=rounded(voice.mean()),
        seconds_judged=int(here.known.sum()) / FPS,
        start_skew=rounded(evidence.start_skew_s),
        notes=[Note(fact.kind, fact.text) for fact in evidence.facts],
        offset=_offset(pair) if pair else None,
        words=[_word(word, there, judged) for word in evidence.words],
        passages=passages(there.second, there.known) if judged else [],
        timeline=_timeline(here, there if shift else None, evidence),
    )


def refusal(path: str, reason: str, message: str) -> Answer:
    """The answer for a video without evidence; `reason` is the ledger's."""
    if reason == "no_audio":
        message = "the file has no sound"
    message = message.removeprefix(str(path)).lstrip(": ")
    return Answer(str(path), CANNOT_DECIDE, REASONS.get(reason, "unreadable"), message)


# -- numbers -----------------------------------------------------------------------------------------------------------


def _numbers(pair: Pair | None, student: Judged | None) -> list[float | None]:
    """All numbers that lead to the probability."""
    found = [] if pair is None else [pair.similarity, pair.at_best, pair.at_near, pair.offset.best, pair.offset.at_zero]
    return [*found, *((student.probability, student.logit) if student else ())]


def _ranking(student: Judged | None, theirs: float | None, by_student: bool) -> Ranking:
    value = student.logit if student else None if theirs is None else 1 - theirs
    return Ranking("logit" if by_student else "similarity", rounded(value))


# -- the decision -------------------------------------------------------------------------------------------------------


def _decided(
    pair: Pair | None, student: Judged | None, fake: float | None, ranking: Ranking, calibration: Calibration
) -> Decided:
    """The verdict on a video with enough evidence, held against the limits for strangers where these decide."""
    lacks = calibration.lacks and f"{_lacks(calibration)}; {ranking.sentence}"
    found = Decided(*verdict(fake, _numbers(pair, student), lacks), None)
    if found.reason or calibration.ruling is None:
        return found
    if student is not None and student.logit is not None:
        found = calibration.ruling.decide(-student.logit, student.frames)
    elif pair is not None:
        found = calibration.ruling.decide(pair.score, pair.frames)
    return replace(found, message=f"{found.message}; {ranking.orders}") if found.reason else found


def _lacks(calibration: Calibration) -> str:
    """What a licence lacks and what follows from it. With one speaker this was measured: 24 of 24 real videos."""
    if calibration.strangers is not None or not calibration.speakers:
        return calibration.lacks
    return f"{calibration.lacks}; strangers' real videos {'score' if calibration.speakers == 1 else 'may score'} like fakes"


def doubt(
    face: np.ndarray, voice: np.ndarray, evident: np.ndarray, offset: Offset | None, at_best: float | None
) -> tuple[str, str]:
    """Why no decision can be made, as (reason, sentence); two empty texts if it can.

    `face`, `voice`, `evident` (a face in a picture that moves) bool [frames]; `at_best` is the similarity of the clip at
    its best offset.
    """
    both, moving = int((face & voice).sum()), int((evident & voice).sum())
    least = f"at least {MIN_FRAMES / FPS:.0f} s"
    if len(face) < MIN_FRAMES:
        return "too short", f"the video lasts {len(face) / FPS:.2f} s; {least} of speech is needed"
    if not voice.any():
        return "no speech", "no speech is heard in its sound"
    if voice.sum() < MIN_FRAMES:
        return "no speech", f"somebody speaks for {voice.sum() / FPS:.2f} s; {least} is needed"
    if both < MIN_FRAMES:
        return "no face", f"a face is seen for {both / FPS:.2f} s while somebody speaks; {least} is needed"
    if moving < max(MIN_FRAMES, MIN_MOVING * both):
        stands = f"the picture stands still for {(both - moving) / FPS:.1f} of the {both / FPS:.1f} s"
        needed = f"{least} of moving lips, and half of that time, are needed"
        return "still picture", f"{stands} in which a face is seen while somebody speaks; {needed}"
    if offset and at_best is not None and out_of_sync(offset, at_best):
        return "out of sync", f"sound is {_ms(offset)}; moved back, lips and voice agree with similarity {at_best:.2f}"
    return "", ""


def verdict(fake: float | None, numbers: Sequence[float | None], lacks: str) -> tuple[str, str, str]:
    """Decision, reason and sentence for a video with enough evidence. Inputs: the probability of fake, None if the
    student had nothing to score; all numbers that led to it; and what a licence lacks, "" if there is one.

    If any number is not finite, there is no verdict.
    """
    damaged = "weights or fit are damaged"
    if not all(finite(x) for x in (fake, *numbers) if x is not None):
        return CANNOT_DECIDE, "not finite", f"the models gave numbers that are not finite: {damaged}"
    if fake is None:
        return CANNOT_DECIDE, "too short", "no frames are left for the student inside both tracks, away from their ends"
    if not 0 <= fake <= 1:
        return CANNOT_DECIDE, "not finite", f"the models gave {fake:g}, which is not a probability: {damaged}"
    if lacks:
        return CANNOT_DECIDE, UNLICENSED, lacks
    return ("fake" if fake >= 0.5 else "real"), "", ""


def finite(x: float | None) -> bool:
    """Whether it is a finite number."""
    return x is not None and math.isfinite(x)


# -- words, passages, moments -------------------------------------------------------------------------------------------


def passages(second: np.ndarray, both: np.ndarray) -> list[Passage]:
    """Stretches in which lips and voice disagree: one-second similarity f4 [frames] below .5, where `both` bool [frames]."""
    against = np.flatnonzero(both & (second < 0.5))
    agree = np.flatnonzero(both & (second >= 0.5))
    found: list[list[int]] = []
    for k in against.tolist():
        if found and k - found[-1][-1] <= PASSAGE_GAP + 1 and not ((agree > found[-1][-1]) & (agree < k)).any():
            found[-1].append(k)
        else:
            found.append([k])
    return [
        Passage(round(f[0] / FPS, 2), round((f[-1] + 1) / FPS, 2), rounded(second[f].mean()))
        for f in found
        if len(f) >= MIN_PASSAGE
    ]


def _word(word: Word, curves: Curves, judged: bool) -> HeardWord:
    """A recognised word and how well the lips agree with it: mean similarity of its frames with face and voice, None
    without any. The verdict is "not judged" if that similarity is not valid for these people (`judged`)."""
    first, last = int(word.start_s * FPS), max(int(np.ceil(word.end_s * FPS)), int(word.start_s * FPS) + 1)
    mine = np.flatnonzero(curves.known[first:last]) + first
    agrees = rounded(curves.near[mine].mean()) if len(mine) else None
    verdict = "not seen"
    if not judged:
        verdict = "not judged"
    elif agrees is not None:
        verdict = "agrees" if agrees >= AGREES else "disagrees" if agrees <= DISAGREES else "unclear"
    start, end = rounded(word.start_s) or 0.0, rounded(word.end_s) or 0.0
    return HeardWord(start, end, word.text, rounded(word.probability), agrees, verdict)


def _timeline(here: Curves, moved: Curves | None, evidence: Evidence) -> list[Moment]:
    """One moment per frame; `moved` are the curves with the sound moved to where it fits."""
    face, voice, evident = evidence.face, evidence.voice, evidence.evident
    return [
        Moment(
            time=round(k / FPS, 2),
            similarity=rounded(here.near[k]) if here.known[k] else None,
            similarity_1s=rounded(here.second[k]) if here.known[k] else None,
            similarity_moved=rounded(moved.near[k]) if moved is not None and moved.known[k] else None,
            face=bool(face[k]),
            voice=bool(voice[k]),
            held=bool(face[k] and not evident[k]),
        )
        for k in range(len(face))
    ]


def _offset(pair: Pair) -> SoundOffset:
    offset = pair.offset
    return SoundOffset(
        sound_late_ms=-MS * offset.frames,
        margin=rounded(offset.margin),
        similarity=rounded(pair.at_best),
        score=rounded(offset.best),
        score_as_it_is=rounded(offset.at_zero),
        moved_ms=MS * pair.shift,
    )


def _ms(offset: Offset) -> str:
    return f"{'late' if offset.frames < 0 else 'early'} by {MS * abs(offset.frames)} ms"
