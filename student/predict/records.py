"""The answer for one video, as records. Attributes have the names of the JSON keys; `to_json` gives them in order.

None means that a number is not known or not finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from store.similarity.strangers import Strangers
    from student.predict.ruling import Ruling

CANNOT_DECIDE = "cannot decide"
UNLICENSED = "uncalibrated"  # the reason of an answer without a licence
BETWEEN = "between the limits"  # the reason of one whose score is usual among real videos and among others


@dataclass(frozen=True)
class Judged:
    """The student's probability of fake and logit (positive = fake), and on how many frames; None if too few were
    left."""

    probability: float | None
    logit: float | None
    frames: int


@dataclass(frozen=True)
class Teachers:
    """The teachers' similarity of the unmodified clip, and their probability of fake if they are calibrated for it."""

    similarity: float | None
    probability: float | None


@dataclass(frozen=True)
class Ranking:
    """The number that ranks videos, from the student ("logit") or from the teachers ("similarity")."""

    by: str
    value: float | None

    @property
    def sentence(self) -> str:
        """The meaning of the number without a licence, as part of a sentence."""
        if self.value is None:
            return "there is also no number to rank it by"
        return f"{self.by} {self.value:.3g} only ranks videos of one session and is not a probability of forgery"

    @property
    def orders(self) -> str:
        """The same for a video whose score is between the limits."""
        return f"{self.by} {self.value:.3g} only ranks it" if self.value is not None else "no number ranks it"


@dataclass(frozen=True)
class Calibration:
    """On whose clips the probability was calibrated; whether this licenses a verdict on these videos (`this_kind`) and,
    if not, why (`lacks`); whether it licenses words and passages, which come from the teachers (`teachers`).

    Where a video of strangers is judged, `ruling` has the limits, and `strangers` the maps of the fit's scores; `named` are
    the corpora that --corpus may state, with their real clips. None of these is in the JSON.
    """

    corpora: list[str]
    this_kind: bool
    lacks: str
    teachers: bool
    speakers: int | None
    text: str
    ruling: Ruling | None = None
    strangers: Strangers | None = None
    named: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        kept = ("corpora", "this_kind", "lacks", "teachers", "speakers", "text")
        return {name: getattr(self, name) for name in kept}


@dataclass(frozen=True)
class Ruled:
    """The limits that a video's score was held against: below `fake_below` it is fake, above `real_above` real; None where
    too few people were measured.

    `score`: the fit's clip score, or minus the detector's logit. `false_alarms` and `misses`: the shares that the limits
    hold. `frames`: the length at which `people` were measured, on `clips`; `guessed`, `joined`, `how`, `corpora`: see
    `store.similarity.strangers`. `text` says it to a person. `gap`, `usual`: see `store.similarity.limits`.
    """

    score: float | None
    fake_below: float | None
    real_above: float | None
    false_alarms: float
    misses: float
    frames: int
    people: int
    clips: int
    guessed: bool
    joined: bool
    how: str
    corpora: list[str]
    text: str
    gap: bool = False
    usual: bool = False


@dataclass(frozen=True)
class SoundOffset:
    """Where the sound fits the lips best. `sound_late_ms`: delay of the sound after the lips; negative if it comes
    before them. `moved_ms`: by how much the sound was moved, positive = later, before it was judged."""

    sound_late_ms: int
    margin: float | None
    similarity: float | None
    score: float | None
    score_as_it_is: float | None
    moved_ms: int = 0


@dataclass(frozen=True)
class HeardWord:
    """A word on the clock of the sound (seconds), and how well the lips agree with it: `verdict` is agrees, unclear, disagrees,
    not seen or not judged."""

    start: float
    end: float
    text: str
    probability: float | None
    agreement: float | None
    verdict: str


@dataclass(frozen=True)
class Passage:
    """A stretch (seconds) in which lips and voice disagree."""

    start: float
    end: float
    similarity: float | None


@dataclass(frozen=True)
class Note:
    """What a person should know of the file, though it could be used: its kind (`pipelines.media.facts.KINDS`) and a
    sentence."""

    kind: str
    text: str


@dataclass(frozen=True)
class Moment:
    """One frame: similarity over 5 frames and over a second, None without face or voice, and where the picture of the
    face stands still (`held`); `similarity_moved` if the
    sound was moved to where it fits."""

    time: float
    similarity: float | None
    similarity_1s: float | None
    similarity_moved: float | None
    face: bool
    voice: bool
    held: bool = False


@dataclass(frozen=True)
class LeftOut:
    """A reference that is not used, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Reference:
    """The person's genuine videos behind an answer: whether it rests on them (`used`), seconds of speech, videos, pieces and
    seconds of each; shares on held-out pieces: own ones called fake, swapped and shifted ones called real, own ones
    decided (None if not measured); whose fit compares, "given" or "own"; those left out; and a sentence."""

    used: bool
    seconds: float
    videos: int
    pieces: int
    piece_seconds: float | None
    false_alarms: float | None = None
    misses: float | None = None
    misses_shifted: float | None = None
    decided: float | None = None
    fit: str = "given"
    left_out: Sequence[LeftOut] = ()
    text: str = ""


@dataclass(frozen=True)
class Answer:
    """The whole answer for one video.

    `decision` is real, fake or CANNOT_DECIDE, which has a `reason` and a `message`. An answer without evidence has only
    these, and `calibration` is None.
    """

    path: str
    decision: str
    reason: str
    message: str
    probability: float | None = None
    ranking: Ranking | None = None
    rests_on: str = ""
    calibration: Calibration | None = None
    limits: Ruled | None = None
    student: Judged | None = None
    teachers: Teachers | None = None
    duration: float = 0.0
    face_share: float | None = None
    held_share: float | None = None
    voice_share: float | None = None
    seconds_judged: float = 0.0
    start_skew: float | None = None
    notes: Sequence[Note] = ()
    offset: SoundOffset | None = None
    words: Sequence[HeardWord] = ()
    passages: Sequence[Passage] = ()
    timeline: Sequence[Moment] = ()
    reference: Reference | None = None

    @property
    def judges_words(self) -> bool:
        """Whether words, passages and the value of the similarity are valid for these people."""
        return self.calibration is not None and self.calibration.teachers

    @property
    def limits_of(self) -> str:
        """The model whose scores the limits are of: "fit" or "detector"."""
        return "detector" if self.rests_on == "student" else "fit"

    @property
    def contradicted(self) -> bool:
        """Whether the teachers' probability is on the other side than the detector's decision."""
        theirs = self.teachers.probability if self.teachers else None
        return bool(
            self.decision != CANNOT_DECIDE and theirs is not None and (theirs >= 0.5) != (self.decision == "fake")
        )

    @property
    def disagreeing_words(self) -> list[str]:
        return [word.text for word in self.words if word.verdict == "disagrees"]

    def to_json(self) -> dict[str, Any]:
        said: dict[str, Any] = {
            "path": self.path,
            "decision": self.decision,
            "reason": self.reason,
            "message": self.message,
            "probability": self.probability,
            "ranking": asdict(self.ranking) if self.ranking else None,
        }
        if self.calibration is not None:
            said |= {
                "rests_on": self.rests_on,
                "calibration": self.calibration.to_json(),
                "limits": asdict(self.limits) if self.limits else None,
                "student": asdict(self.student) if self.student else None,
                "teachers": asdict(self.teachers) if self.teachers else None,
                "duration": self.duration,
                "face_share": self.face_share,
                "held_share": self.held_share,
                "voice_share": self.voice_share,
                "seconds_judged": self.seconds_judged,
                "start_skew": self.start_skew,
                "notes": [asdict(note) for note in self.notes],
                "offset": asdict(self.offset) if self.offset else None,
            }
        if self.reference is not None:
            said["reference"] = asdict(self.reference)
        return said | {
            "words": [asdict(word) for word in self.words],
            "disagreeing_words": self.disagreeing_words,
            "passages": [asdict(passage) for passage in self.passages],
            "timeline": [moment.__dict__.copy() for moment in self.timeline],
        }


def rounded(x: float | None) -> float | None:
    """Four digits; None for a value that is not a number."""
    return None if x is None or not math.isfinite(x) else round(float(x), 4)
