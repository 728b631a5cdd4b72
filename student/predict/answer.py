"""What is said of one video, from the teachers' evidence and the student's logit: a decision or why there is none, and grounds.

"Real" says that lips and voice agree, "fake" that they do not. Where too little is seen or heard, or the sound fits its lips
well at another time, there is no decision: late sound alone would otherwise read as a forgery. Nor is there one where nothing
licenses it (`store.similarity.grounds`): people whom a calibration has not seen agree less for reasons that are no forgery, so
they get a number that ranks and no verdict, on words neither. A number that is not finite decides nothing. The limits were set
on 54 GRID clips that the fit had not learned from and checked on 60 more (docs/predict.md). What it leaves out: it opens
nothing and computes no embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from store import similarity
from store.layout import FPS
from store.similarity import Fit, Offset

MIN_FRAMES = 25  # with face and voice: one second, of which 1 to 2 in 100 read wrong on GRID
MIN_OFFSET = 3  # frames that make it out of sync; of real clips one in a hundred is that far off
MIN_MARGIN = 0.25  # of the score at the best offset above all others; real clips have .32 and more, 98 % of swaps less
AGREES, DISAGREES = 0.7, 0.3  # mean similarity of a word's frames: 1 % of true words are below .3, 91 % of swapped ones
MIN_PASSAGE = 13  # frames with face and voice, half a second, that make a passage
PASSAGE_GAP = 12  # frames without either that do not end one
REASONS = {
    "no_face": "no face",
    "no_audio": "no speech",
    "too_short": "too short",
    "not_finite": "not finite",
}  # the ledger's words; others: unreadable
UNLICENSED = "uncalibrated"  # the reason of an answer that nothing licenses
MS = 1000 // FPS


def answer(
    evidence: Any,
    fit: Fit,
    corpus: str | None,
    calibration: Mapping[str, Any],
    judge: Callable[[Any, int], Mapping[str, Any]] | None,
) -> dict[str, Any]:
    """Everything that is said of one video (`student.predict.evidence.Evidence`), as plain values for JSON; nothing in it
    depends on time or machine.

    `corpus` chooses the fit's calibration; `calibration` says whose it is and what it licenses (`Basis.calibration`); `judge`
    is the student's (`student.predict.basis`), None without one. Sound that clearly fits at another time is moved there before
    anything is judged: people let up to 80 ms pass, and from 120 ms on there is no decision. Words, passages and
    `similarity_moved` are on the clock of the sound. Nothing in it is a number that is not finite: None stands for it.
    """
    face, voice = evidence.face, evidence.voice
    near, both = agreement(evidence, fit, corpus, 5)
    second, _ = agreement(evidence, fit, corpus, 25)
    offset, at_best, teacher = None, None, None
    if both.any():
        v, a = evidence.vsr_projection, evidence.asr_projection
        teacher = float(similarity.compare(v, a, fit, "clip", both, corpus)[0])
        offset = similarity.best_offset(v, a, fit, face, voice)
        at_best = float(similarity.probability(np.array([offset.best]), fit, "clip", corpus)[0])
    shift = offset.frames if offset and at_best is not None and fits_elsewhere(offset, at_best) else 0
    student = dict(judge(evidence.clip, shift)) if judge and both.any() else None
    theirs = None if at_best is None or teacher is None else 1 - (at_best if shift else teacher)
    fake = student["probability"] if student else theirs
    numbers = [teacher, at_best, theirs, *((offset.best, offset.at_zero) if offset else ())]
    numbers += [student["probability"], student["logit"]] if student else []
    value = student["logit"] if student else None if theirs is None else 1 - theirs
    ranking = {"by": "logit" if judge else "similarity", "value": _rounded(value)}
    reason, message = doubt(face, voice, offset, at_best)
    if not reason:
        lacks = calibration["lacks"] and f"{calibration['lacks']}; {ranked(ranking)}"
        decision, reason, message = verdict(fake, numbers, lacks)
    else:
        decision = "cannot decide"
    if student and (reason or not finite(fake)):
        student["probability"] = None

    in_sync, heard_and_seen = agreement(evidence, fit, corpus, 5, shift) if shift else (near, both)
    in_sync_second = agreement(evidence, fit, corpus, 25, shift)[0] if shift else second
    judged = calibration["teachers"]
    words = [_word(word, in_sync, heard_and_seen, judged) for word in evidence.words]
    return {
        "path": evidence.path,
        "decision": decision,
        "reason": reason,
        "message": message,
        "probability": None if reason else _rounded(fake),
        "ranking": ranking,
        "rests_on": "student" if judge else "teachers",
        "calibration": dict(calibration),
        "student": {k: v if k == "frames" else _rounded(v) for k, v in student.items()} if student else None,
        "teachers": {"similarity": _rounded(teacher), "probability": _rounded(theirs) if judged else None},
        "duration": len(both) / FPS,
        "face_share": _rounded(face.mean()),
        "voice_share": _rounded(voice.mean()),
        "seconds_judged": int(both.sum()) / FPS,
        "start_skew": _rounded(evidence.start_skew_s),
        "offset": None if offset is None else _offset(offset, at_best),
        "words": words,
        "disagreeing_words": [word["text"] for word in words if word["verdict"] == "disagrees"],
        "passages": passages(in_sync_second, heard_and_seen) if judged else [],
        "timeline": [
            {
                "time": round(k / FPS, 2),
                "similarity": _rounded(near[k]) if both[k] else None,
                "similarity_1s": _rounded(second[k]) if both[k] else None,
                "similarity_moved": _rounded(in_sync[k]) if shift and heard_and_seen[k] else None,
                "face": bool(face[k]),
                "voice": bool(voice[k]),
            }
            for k in range(len(both))
        ],
    }


def verdict(fake: float | None, numbers: Sequence[float | None], lacks: str) -> tuple[str, str, str]:
    """Decision, reason and sentence for a video with evidence enough, from the probability of fake, None where the student had
    nothing to look at; from all numbers on the way to it; and from what a licence lacks, "" where there is one.

    No verdict comes of a number that is not finite, whatever the others are.
    """
    if not all(finite(x) for x in (fake, *numbers) if x is not None):
        return "cannot decide", "not finite", "the models gave numbers that are not finite: weights or fit are damaged"
    if fake is None:
        return "cannot decide", "too short", "nothing is left for the student inside both tracks, away from their ends"
    if not 0 <= fake <= 1:
        return (
            "cannot decide",
            "not finite",
            f"the models gave {fake:g}, which is no probability: weights or fit are damaged",
        )
    if lacks:
        return "cannot decide", UNLICENSED, lacks
    return ("fake" if fake >= 0.5 else "real"), "", ""


def finite(x: float | None) -> bool:
    """Whether it is a number, and neither infinite nor NaN."""
    return x is not None and math.isfinite(x)


def ranked(ranking: Mapping[str, Any]) -> str:
    """What the number that is left without a licence says, as part of a sentence."""
    return (
        f"{ranking['by']} {ranking['value']:.3g} only ranks videos of one sitting and is no probability of forgery"
        if ranking["value"] is not None
        else "there is no number to rank it by either"
    )


def agreement(
    evidence: Any, fit: Fit, corpus: str | None, window: int, shift: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Similarity f4 [frames] of the sound of each frame with the lips `shift` frames later, and where both are there, bool
    [frames]; elsewhere the similarity means nothing."""
    frames = len(evidence.face)
    value, known = np.zeros(frames, np.float32), np.zeros(frames, bool)
    lips, sound, _ = similarity.shifted(frames, frames, shift)
    known[sound] = evidence.face[lips] & evidence.voice[sound]
    pair = evidence.vsr_projection[lips], evidence.asr_projection[sound]
    value[sound] = similarity.compare(*pair, fit, window, known[sound], corpus)
    return value, known


def doubt(face: np.ndarray, voice: np.ndarray, offset: Offset | None, at_best: float | None) -> tuple[str, str]:
    """Why no decision can be made, as (reason, sentence); two empty texts where it can.

    `face`, `voice` bool [frames]; `at_best` is the similarity of the clip at its best offset.
    """
    both = int((face & voice).sum())
    if len(face) < MIN_FRAMES:
        return (
            "too short",
            f"the video lasts {len(face) / FPS:.1f} s; at least {MIN_FRAMES / FPS:.0f} s of speech is needed",
        )
    if not voice.any():
        return "no speech", "no speech is heard in its sound"
    if voice.sum() < MIN_FRAMES:
        return (
            "no speech",
            f"somebody speaks for {voice.sum() / FPS:.1f} s; at least {MIN_FRAMES / FPS:.0f} s is needed",
        )
    if both < MIN_FRAMES:
        return (
            "no face",
            f"a face is seen for {both / FPS:.1f} s while somebody speaks; at least {MIN_FRAMES / FPS:.0f} s is needed",
        )
    if offset and at_best is not None and out_of_sync(offset, at_best):
        return "out of sync", f"sound is {_ms(offset)}; moved back, lips and voice agree with similarity {at_best:.2f}"
    return "", ""


def out_of_sync(offset: Offset, at_best: float) -> bool:
    """Whether sound and lips agree well, but at another time than the file's, so far off that people notice."""
    return abs(offset.frames) >= MIN_OFFSET and fits_elsewhere(offset, at_best)


def fits_elsewhere(offset: Offset, at_best: float) -> bool:
    """Whether sound and lips clearly agree well at another time than the file's; `at_best` as in `doubt`."""
    return offset.frames != 0 and offset.margin >= MIN_MARGIN and at_best >= 0.5


def passages(second: np.ndarray, both: np.ndarray) -> list[dict[str, float]]:
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
        {"start": round(f[0] / FPS, 2), "end": round((f[-1] + 1) / FPS, 2), "similarity": _rounded(second[f].mean())}
        for f in found
        if len(f) >= MIN_PASSAGE
    ]


def _word(word: Any, near: np.ndarray, both: np.ndarray, judged: bool) -> dict[str, Any]:
    """A heard word and how well its lips agree: mean similarity of its frames with face and voice, None without any. No verdict
    but "not judged" where that similarity means nothing for these people (`judged`)."""
    first, last = int(word.start_s * FPS), max(int(np.ceil(word.end_s * FPS)), int(word.start_s * FPS) + 1)
    mine = np.flatnonzero(both[first:last]) + first
    agreement = _rounded(near[mine].mean()) if len(mine) else None
    verdict = "not seen"
    if not judged:
        verdict = "not judged"
    elif agreement is not None:
        verdict = "agrees" if agreement >= AGREES else "disagrees" if agreement <= DISAGREES else "unclear"
    return {
        "start": _rounded(word.start_s),
        "end": _rounded(word.end_s),
        "text": word.text,
        "probability": _rounded(word.probability),
        "agreement": agreement,
        "verdict": verdict,
    }


def _offset(offset: Offset, at_best: float | None) -> dict[str, Any]:
    """`sound_late_ms`: by how much the sound comes after the lips that it fits best; below 0, before them."""
    return {
        "sound_late_ms": -MS * offset.frames,
        "margin": _rounded(offset.margin),
        "similarity": _rounded(at_best),
        "score": _rounded(offset.best),
        "score_as_it_is": _rounded(offset.at_zero),
    }


def _ms(offset: Offset) -> str:
    return f"{'late' if offset.frames < 0 else 'early'} by {MS * abs(offset.frames)} ms"


def refusal(path: str, reason: str, message: str) -> dict[str, Any]:
    """The answer for a video that gave no evidence."""
    known = REASONS.get(reason, "unreadable")
    if reason == "no_audio":
        message = "the file has no sound"
    return {
        "path": str(path),
        "decision": "cannot decide",
        "reason": known,
        "message": message.removeprefix(str(path)).lstrip(": "),
        "probability": None,
        "ranking": None,
        "words": [],
        "disagreeing_words": [],
        "passages": [],
        "timeline": [],
    }


def _rounded(x: Any) -> Any:
    """Four digits; None for what is not a number."""
    return None if x is None or not np.isfinite(x) else round(float(x), 4)
