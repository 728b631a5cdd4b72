"""A person's genuine videos as the calibration of an answer: `predict --reference VIDEO`.

Each reference is seen and heard as the judged videos are. One without usable evidence, out of sync, given twice, or whose
own lips and voice do not agree is named and left out; so is the judged video itself.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from concord.text import counted, plain
from pipelines.labels import projection
from pipelines.labels.projection import half
from store import similarity
from store.layout import FPS
from store.similarity import Fit
from store.similarity.limits import RATE
from student.calibration import doubts
from student.calibration.person import NAME, Calibrated, Person
from student.calibration.recordings import SHORTEST, Recording
from student.predict.agreement import fits_elsewhere, settled
from student.predict.answer import answer, doubt
from student.predict.evidence import Evidence, Unusable, Witness
from student.predict.records import BETWEEN, CANNOT_DECIDE, Answer, Calibration, LeftOut, Reference, rounded

log = logging.getLogger("student")

ITSELF = "it is the judged video itself"


@dataclass(frozen=True)
class References:
    """The person whom the references show, and those left out, with the reason."""

    person: Person
    left_out: Sequence[LeftOut]


@dataclass(frozen=True)
class Resting:
    """What an answer rests on with references: evidence in the space of the person's fit, that fit, its calibration, the
    limits of similarity (fake, real), and the record of it. `calibrated` is None without enough of a reference."""

    evidence: Evidence
    record: Reference
    calibrated: Calibrated | None = None

    @property
    def calibration(self) -> Calibration:
        return Calibration([NAME], True, "", True, 1, self.record.text)


def gathered(paths: Sequence[str], witness: Witness, fit: Fit, corpus: str | None, alarms: float = RATE) -> References:
    """The references at `paths`, watched; `corpus` is the map of `fit` that judges whether one is out of sync, `alarms` the
    share of genuine videos that may be called fake."""
    found: list[Recording] = []
    left_out: list[LeftOut] = []
    for path in paths:
        try:
            sha256 = digest(path)
            if twin := next((one for one in found if sha256 and one.sha256 == sha256), None):
                left_out.append(LeftOut(path, f"the same file as {os.path.basename(twin.path)}"))
                continue
            seen, _ = witness.hear_and_see(path, words=False)
        except (Unusable, OSError) as error:
            left_out.append(LeftOut(path, plain(str(error).removeprefix(str(path)).lstrip(": "))))
            continue
        seen = settled(seen, fit)
        reason, shift = _wrong(seen, fit, corpus)
        if reason:
            left_out.append(LeftOut(path, reason))
        else:
            found.append(Recording(path, sha256, seen.vsr, seen.asr, seen.evident, seen.voice, shift))
    bad = doubts.disagreeing(found, fit)
    left_out += [LeftOut(found[k].path, "its own lips and voice do not agree") for k in bad]
    kept = Person([one for k, one in enumerate(found) if k not in bad], fit, alarms)
    log.info(
        "reference: %.0f s of speech in %d of %s", kept.seconds(), len(kept.recordings), counted(len(paths), "video")
    )
    for one in left_out:
        log.warning("reference %s is left out: %s", one.path, one.reason)
    return References(kept, left_out)


def _wrong(seen: Evidence, fit: Fit, corpus: str | None) -> tuple[str, int]:
    """Why a reference cannot be used, "" if it can; and the frames by which its sound must be moved (`answer.answer`)."""
    known = seen.evident & seen.voice
    if seen.unsettled:
        return seen.unsettled, 0
    offset = at_best = None
    if known.any():
        offset = similarity.best_offset(seen.vsr_projection, seen.asr_projection, fit, seen.evident, seen.voice)
        at_best = float(similarity.probability(np.array([offset.best]), fit, "clip", corpus)[0])
    reason, message = doubt(seen.face, seen.voice, seen.evident, offset, at_best)
    if reason:
        return f"{reason}: {message}", 0
    moved = offset is not None and at_best is not None and fits_elsewhere(offset, at_best)
    return "", offset.frames if offset and moved else 0


def resting(references: References, seen: Evidence) -> Resting:
    """What the answer for a video rests on."""
    mine = references.person
    sha256 = digest(seen.path)
    left_out = list(references.left_out)
    if itself := next((one for one in mine.recordings if sha256 and one.sha256 == sha256), None):
        left_out.append(LeftOut(itself.path, ITSELF))
    frames = int((seen.evident & seen.voice).sum())
    seconds = mine.seconds(sha256)
    found = mine.at(max(frames, 1), sha256)
    videos = len(mine.recordings) - (itself is not None)
    if found is None:
        pieces, least = mine.pieces(sha256), SHORTEST / FPS
        text = (
            f"the reference has {seconds:.0f} s of speech in {pieces} pieces of at least {least:.0f} s; {mine.needed} pieces "
            f"are needed: {(mine.needed - pieces) * least:.0f} s more in long videos"
        )
        return Resting(seen, Reference(False, round(seconds, 2), videos, pieces, None, left_out=left_out, text=text))
    lacks, errors = found.lacks, found.errors
    record = Reference(
        used=not lacks,
        seconds=round(found.seconds, 2),
        videos=found.recordings,
        pieces=found.pieces,
        piece_seconds=round(found.piece_frames / FPS, 2),
        false_alarms=rounded(errors.false_alarms),
        misses=rounded(errors.misses),
        misses_shifted=rounded(errors.misses_shifted),
        decided=rounded(errors.decided),
        fit="own" if found.is_own else "given",
        left_out=left_out,
        text=f"the reference is not used: {lacks}" if lacks else _told(found),
    )
    if lacks:
        return Resting(seen, record)
    if found.is_own:
        to_vsr, to_asr = projection.maps(found.fit)
        seen = replace(
            seen,
            vsr_projection=half(to_vsr(seen.vsr, seen.clip.flags)),
            asr_projection=half(to_asr(seen.asr, seen.clip.flags)),
        )
    return Resting(seen, record, found)


def answered(
    references: References, seen: Evidence, fit: Fit, corpus: str | None, calibration: Calibration
) -> tuple[Answer, Evidence]:
    """The answer that rests on the references, else on the fit with the calibration of `corpus` as without them; and the
    evidence in the space of the fit that gave it."""
    on = resting(references, seen)
    if (found := on.calibrated) is not None:
        said = decided(answer(on.evidence, found.fit, NAME, on.calibration), found.fake, found.real)
    else:
        said = answer(seen, fit, corpus, calibration)
    return replace(said, reference=on.record), on.evidence


def decided(said: Answer, fake: float, real: float) -> Answer:
    """The answer with the decision by the two limits of similarity: below `fake` it is fake, from `real` on real."""
    if said.reason or said.probability is None:
        return said
    alike = 1 - said.probability
    if fake <= alike < real:
        text = f"similarity {alike:.2f} is between {fake:.2f}, below which it is fake, and {real:.2f}, from which on it is real"
        return replace(said, decision=CANNOT_DECIDE, reason=BETWEEN, message=text, probability=None)
    return replace(said, decision="fake" if alike < fake else "real")


def _told(found: Calibrated) -> str:
    errors = found.errors
    videos = f"{found.recordings} videos" if found.recordings > 1 else "one video"
    held = "videos" if found.recordings > 1 else "parts"
    text = (
        f"{'fitted and ' if found.is_own else ''}calibrated on {found.seconds:.0f} s of this person in {videos}; on "
        f"held-out {held} {errors.false_alarms:.0%} false alarms, {errors.misses:.0%} of swaps missed, "
        f"{errors.decided:.0%} decided"
    )
    return text if found.recordings > 1 else f"{text}; another recording may differ more"


def digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, "" of a pipe or device, which can be read only once. Raises OSError."""
    if not os.path.isfile(path):
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
