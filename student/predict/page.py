"""The page for one video: first the answer in plain words, then what was seen and heard, then facts and limits; and the
list of several pages.

A page is one file that opens from a disk and needs no network and no script (`templates/video.html.j2`). Its pictures are
small JPEGs inside it; MOMENTS of them keep it far below 1.5 MB. The list (`templates/index.html.j2`) has one script, which
sorts it; without it the list stays as it is.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from typing import Any
from urllib.parse import quote

import numpy as np
from markupsafe import Markup

from concord.frames import FPS
from concord.text import counted, spelled
from pipelines.ui.pages import render
from store import output
from store.formats.table import to_csv
from student.predict import words as predict_words
from student.predict.plot import KINDS, MARKS, WIDTHS, clock, figure
from student.predict.records import BETWEEN, UNLICENSED, Answer, HeardWord

COMMAND = "student.predict"
MOMENTS = 10  # of the strip
WIDTH = 176  # pixels of its pictures
TRANSCRIPT, PASSAGES = 4000, 100  # most words and passages on the page
VERDICTS = {"agrees": "lips agree", "unclear": "unclear", "disagrees": "lips disagree", "not seen": "not seen"}
# of the table of answers
COLUMNS: tuple[str, ...] = ("file", "answer", "decision", "probability", "reason", "explanation", "page", "path")
LISTS = output.marked("a list of student.predict", ",".join(COLUMNS).encode())
COLUMNS += ("ranking", "ranked_by")  # which lists of earlier releases lack
UNJUDGED = {"not judged": "as it was heard; whether lips agree is not judged"}


@dataclass(frozen=True)
class Shot:
    """A moment of the strip: seconds from the start, JPEGs of the picture (None if it could not be read again) and of
    the mouth, and the word that is spoken, if any."""

    time: float
    picture: bytes | None
    mouth: bytes
    word: HeardWord | None


@dataclass(frozen=True)
class Listed:
    """An answer in a list, and the name of its page in the same folder."""

    said: Answer
    page: str

    @property
    def name(self) -> str:
        return os.path.basename(self.said.path)

    @property
    def short(self) -> str:
        """One of `words.SHORT`."""
        return predict_words.short(self.said)

    @property
    def rank(self) -> int:
        return list(predict_words.SHORT).index(self.short)

    @property
    def ranking(self) -> float | None:
        """The number that orders videos of one run, also where nothing is decided."""
        return self.said.ranking.value if self.said.ranking else None

    @property
    def why(self) -> str:
        """The answer in a few words."""
        head = predict_words.headline(self.said)[1].removeprefix("No answer: ")
        return f"{head[:1].upper()}{head[1:]}"

    @property
    def link(self) -> str:
        """The page's name as a relative URL."""
        return quote(os.fsencode(self.page))


def index(listed: Sequence[Listed], asked: int, basis: Mapping[str, Any]) -> str:
    """The page that lists answers and links to their pages; `asked` is the number of videos that were to be judged."""
    script = resources.files(__package__).joinpath("templates", "index.js").read_text(encoding="utf-8")
    counts = Counter(one.short for one in listed)
    told = ", ".join(f"{counts[name]:,} {name}" for name in predict_words.SHORT if counts[name])
    return render(
        "student.predict/index.html.j2",
        COMMAND,
        title=f"{counted(len(listed), 'video')}: {told}",
        missing=asked - len(listed),
        listed=listed,
        answers=predict_words.SHORT,
        ranked_by="similarity of lips and voice" if not basis["student"] else "logit of fake",
        rests_on="a trained detector" if basis["student"] else "two general models, without a trained detector",
        script=Markup(f"<script>{script}</script>"),
        digest=b64encode(sha256(script.encode()).digest()).decode(),
    )


def table(listed: Sequence[Listed]) -> bytes:
    """The same list as CSV, with COLUMNS; what is no Unicode text in a name is spelled out."""
    rows = [
        (
            one.name,
            one.short,
            said.decision,
            said.probability,
            said.reason,
            said.message or one.why,
            one.page,
            said.path,
            one.ranking,
            said.ranking.by if said.ranking else "",
        )
        for one in listed
        for said in [one.said]
    ]
    text = [[spelled(value) if isinstance(value, str) else value for value in row] for row in rows]
    return to_csv(dict(zip(COLUMNS, zip(*text, strict=True), strict=True)))


def page(said: Answer, basis: Mapping[str, Any], shots: Sequence[Shot], audio: np.ndarray | None) -> str:
    """The whole page for an answer (`student.predict.answer`), its basis (for JSON), `shots` of the video, and its
    sound i2, if any."""
    tone, head, why = predict_words.headline(said)
    seen = bool(said.timeline)
    judged = said.judges_words
    return render(
        "student.predict/video.html.j2",
        COMMAND,
        title=head,
        tone=tone,
        why=why,
        name=os.path.basename(said.path),
        said=said,
        advice=predict_words.advice(said),
        ranking=_ranking(said),
        judged=judged,
        moved=_moved(said),
        drawings=[(kind, figure(said, audio, wide)) for kind, wide in WIDTHS.items()] if seen else [],
        shots=shots,
        facts=list(_facts(said, basis)),
        limits=predict_words.LIMITS,
        marks=MARKS,
        kinds=KINDS,
        verdicts=VERDICTS if judged else UNJUDGED,
        transcript=TRANSCRIPT,
        passages=PASSAGES,
        clock=clock,
        base64=lambda jpeg: b64encode(jpeg).decode(),
    )


def shots(said: Answer, seen: Any, witness: Any) -> list[Shot]:
    """Moments for the strip: picture, mouth crop, time and word. `seen` and `witness` are of `student.predict.evidence`."""
    from student.predict.evidence import mouths

    if seen is None:
        return []
    moments = _moments(said)
    frames = sorted(moments)
    pictures, crops = witness.pictures(seen, frames, WIDTH), mouths(seen, frames)
    return [Shot(k / FPS, pictures.get(k), crops[k], moments[k]) for k in frames if k in crops]


def _moments(said: Answer) -> dict[int, HeardWord | None]:
    """Frames for the strip and their words: all words with a visible face or, if they are too many, those that disagree
    most and a regular selection of the others. Without words: evenly spaced frames with face and voice, else with a
    face."""
    line = said.timeline
    words = [w for w in said.words if w.agreement is not None]
    if words:
        worst = sorted((w for w in words if w.verdict == "disagrees"), key=lambda w: w.agreement or 0.0)[: MOMENTS // 2]
        rest = [w for w in words if w not in worst]
        chosen = worst + [rest[k] for k in _evenly(len(rest), MOMENTS - len(worst))]
        # show the lips of a word, even if its sound is at another time
        lag = said.offset.moved_ms * FPS / 1000 if said.offset else 0
        found: dict[int, HeardWord | None] = {}
        for word in chosen:
            middle = (word.start + word.end) / 2 * FPS
            inside = [k for k in range(len(line)) if line[k].face]
            found[min(inside, key=lambda k: abs(k + 0.5 - middle - lag))] = word
        return found
    frames = [k for k, m in enumerate(line) if m.similarity is not None]
    frames = frames or [k for k, m in enumerate(line) if m.face]
    return dict.fromkeys(frames[k] for k in _evenly(len(frames), MOMENTS))


def _moved(said: Answer) -> bool:
    """Whether words were judged with the sound moved to where it fits."""
    return any(moment.similarity_moved is not None for moment in said.timeline)


def _evenly(count: int, most: int) -> list[int]:
    if most <= 0 or count == 0:
        return []
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))


def _ranking(said: Answer) -> str:
    """The sentence for the ranking number, if no probability is licensed; "" if there is none."""
    if said.reason not in (UNLICENSED, BETWEEN) or said.ranking is None or said.ranking.value is None:
        return ""
    more = (
        "lips and voice are more alike"
        if said.ranking.by == "similarity"
        else "the detector found more of what it was trained to find"
    )
    number = f"{said.ranking.by} {said.ranking.value:.3g}"
    return (
        f"For ranking only: {number}. Among several videos of one run, a higher number means that {more}. "
        "It is not a probability of forgery."
    )


def _facts(said: Answer, basis: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values of the list of facts."""
    if said.timeline and said.teachers and said.calibration:
        yield "Length", clock(said.duration)
        yield "Judged on", f"{said.seconds_judged:.1f} s with face and voice"
        yield "Face seen", f"{said.face_share:.0%} of the time"
        if said.held_share:
            yield "Picture stands still", f"{said.held_share:.0%} of the time, a face in view"
        yield "Voice heard", f"{said.voice_share:.0%} of the time"
        if (teacher := said.teachers.similarity) is not None:
            means = (
                "1 = lips and voice belong together"
                if said.judges_words
                else "measured for other people: for ranking only, not a probability"
            )
            yield "Similarity", f"{teacher:.3g} over the whole video, {means}"
        if (offset := said.offset) is not None:
            late = offset.sound_late_ms
            where = "as in the file" if late == 0 else f"with the sound moved by {-late:+d} ms"
            there, margin = ("unknown" if x is None else f"{x:.2f}" for x in (offset.similarity, offset.margin))
            yield "Best fit", f"{where}, similarity {there}, margin {margin}"
            if offset.moved_ms:
                yield "Judged", f"with the sound moved by {offset.moved_ms:+d} ms"
        if said.student and said.student.logit is not None:
            yield "Detector's logit", f"{said.student.logit:.2f} over {counted(said.student.frames, 'frame')}"
        for note in said.notes:
            yield "Note", note.text
        yield "Calibration", said.calibration.text
        if (limits := said.limits) is not None:
            low, high = ("none" if x is None else f"{x:.3g}" for x in (limits.fake_below, limits.real_above))
            yield "Limits", f"fake below {low}, real above {high}; this video's score is {limits.score:.3g}"
            yield "Limits hold", limits.text
    if (known := said.reference) is not None:
        if not known.used:
            yield "Reference", known.text
        yield from (("Reference left out", f"{os.path.basename(one.path)}: {one.reason}") for one in known.left_out)
    yield "Models", ", ".join(f"{m['name']} ({str(m['sha256'])[:12]})" for m in basis["teachers"].values())
    yield "Shared space", f"{basis['fit']['kind']}, from {basis['fit']['from']}"
    if student := basis["student"]:
        yield "Detector", f"{student['model']}, {student['checkpoint']}, threshold fitted on {student['fitted_on']}"
