"""The plot of a video's speech as SVG, in rows of a few seconds: waveform, similarity, recognised words; drawn for broad and
for narrow screens, so that letters have one size on both.

Stretches that cannot be judged are shaded and labelled, and disagreement is shown by a mark as well as by colour. If
the similarity is calibrated only for other people, one neutral colour is used and there is no middle line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil
from unicodedata import east_asian_width

import numpy as np
from markupsafe import Markup

from concord.frames import FPS, SAMPLE_RATE
from concord.text import html as t
from student.predict.records import Answer, HeardWord, Moment

SECOND = 114  # least pixels for a second, so that words stay readable
LONG_S = 240.0  # from this length on one row for the whole video, of one-second similarities and without words
WIDTHS = {"broad": 760, "narrow": 340}  # pixels, by class name
LEFT, RIGHT = 66, 6
WAVE, PLOT, LANE = 46, 96, 22  # heights of the sound, of the similarity, and of a line of words
TOP = 6
TOP_OF_PLOT = TOP + WAVE + 8
BASE = TOP_OF_PLOT + PLOT
LONGEST = 24  # letters of a word that are shown
INSET, GAP = 5, 3  # pixels between a word and its box, and between boxes
MARKS = {"agrees": "", "unclear": "? ", "disagrees": "≠ ", "not seen": "· ", "not judged": ""}
KINDS = {
    "agrees": "yes",
    "unclear": "maybe",
    "disagrees": "no",
    "not seen": "none",
    "not judged": "none",
}  # class names


@dataclass(frozen=True)
class Strip:
    """One row of the drawing: frames first to last, `scale` pixels per frame, `wide` pixels in all."""

    first: int
    last: int
    scale: float
    wide: int

    def x(self, frame: float) -> float:
        """Where a frame begins, in pixels from the left."""
        return LEFT + (frame - self.first) * self.scale

    @property
    def short(self) -> bool:
        """Whether there is space for words under it."""
        return (LONG_S * FPS + 0.5) * self.scale >= self.wide - LEFT - RIGHT

    def names(self, name: str) -> str:
        """An id that is unique on the page."""
        return f"{name}-{self.wide}-{self.first}"


def figure(said: Answer, audio: np.ndarray | None, wide: int) -> Markup:
    """Rows of SVG, `wide` pixels each, for an answer with a timeline; `audio` i2 [640 * frames] for the waveform, if
    available."""
    line = said.timeline
    duration = len(line) / FPS
    rows = 1 if duration > LONG_S else ceil(duration * SECOND / (wide - LEFT - RIGHT))
    per_row = ceil(len(line) / rows)
    level = max(1.0, float(np.abs(audio.astype(np.int32)).max())) if audio is not None and len(audio) else 1.0
    strips = (
        Strip(first, min(first + per_row, len(line)), (wide - LEFT - RIGHT) / per_row, wide)
        for first in range(0, len(line), per_row)
    )
    return Markup("".join(_row(said, strip, audio, level) for strip in strips))


def _row(said: Answer, strip: Strip, audio: np.ndarray | None, level: float) -> str:
    """One row; `level` is the highest sample of the whole sound."""
    line, end = said.timeline, strip.x(strip.last)
    judged = said.judges_words
    parts = [_gaps(line, strip)]
    if audio is not None:
        parts.append(_wave(audio, strip, level))
    lines = ((1, "agree"), (0.5, ""), (0, "disagree")) if judged else ((1, "more alike"), (0, "less alike"))
    for value, name in lines:
        y = BASE - value * PLOT
        kind = "half" if value == 0.5 else "axis"
        parts.append(f'<line class="{kind}" x1="{LEFT}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="s" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
    parts.append(f'<text class="s" x="{LEFT - 8}" y="{TOP + WAVE / 2 + 4:.1f}" text-anchor="end">sound</text>')
    parts.append(_curve(line, strip, "similarity" if strip.short else "similarity_1s", judged))
    parts.append(_curve(line, strip, "similarity_moved", judged))
    parts.append(_ticks(strip))
    height = BASE + 20
    if strip.short:
        words = [w for w in said.words if strip.first <= (w.start + w.end) / 2 * FPS < strip.last]
        boxes = _boxes(words, strip)
        parts += (_word(word, box) for word, box in zip(words, boxes, strict=True))
        height += LANE * (1 + max(box.lane for box in boxes)) + 2 if boxes else 0
    says = f"Seconds {strip.first / FPS:.1f} to {strip.last / FPS:.1f}: sound, and how well lips and voice agree"
    return f'<svg viewBox="0 0 {strip.wide} {height}" role="img" aria-label="{says}">{"".join(parts)}</svg>'


def _wave(audio: np.ndarray, strip: Strip, level: float) -> str:
    """The sound's peaks, mirrored, one for every two pixels."""
    per_frame = SAMPLE_RATE // FPS
    piece = np.abs(audio[strip.first * per_frame : strip.last * per_frame].astype(np.int32))
    begin, end = strip.x(strip.first), strip.x(strip.last)
    bins = max(1, int((end - begin) / 2))
    edges = np.linspace(0, len(piece), bins + 1).astype(int)[:-1]
    peaks = np.maximum.reduceat(piece, edges) / level * (WAVE / 2) if len(piece) else np.zeros(1)
    middle, step = TOP + WAVE / 2, (end - begin) / bins
    across = [begin + (k + 0.5) * step for k in range(bins)]
    above = [f"{a:.1f} {middle - max(p, 0.5):.1f}" for a, p in zip(across, peaks, strict=True)]
    below = [f"{a:.1f} {middle + max(p, 0.5):.1f}" for a, p in zip(across, peaks, strict=True)]
    return f'<path class="wave" d="M{"L".join(above + below[::-1])}Z"/>'


def _gaps(line: Sequence[Moment], strip: Strip) -> str:
    """Shaded stretches without face or voice, or in which the picture stands still, labelled if there is space."""
    parts = []
    shown = line[strip.first : strip.last]
    why = ["no voice" if not m.voice else "no face" if not m.face else "still" if m.held else "" for m in shown]
    at, x = strip.first, strip.x
    for name, run in groupby(why):
        stop = at + len(list(run))
        if name:
            wide = x(stop) - x(at)
            parts.append(f'<rect class="mute" x="{x(at):.1f}" y="{TOP_OF_PLOT}" width="{wide:.1f}" height="{PLOT}"/>')
            if wide > 52:
                middle = (x(at) + x(stop)) / 2
                parts.append(f'<text class="s" x="{middle:.1f}" y="{BASE - 8}" text-anchor="middle">{name}</text>')
        at = stop
    return "".join(parts)


def _curve(line: Sequence[Moment], strip: Strip, name: str, judged: bool) -> str:
    """The similarity where it is known: green above the middle and red below it or, if not `judged`, in one colour."""
    first, last = strip.first, strip.last
    step = max(1, (last - first) // 1400)
    parts, at = [], first
    heights: list[float | None] = [getattr(moment, name) for moment in line[first:last:step]]
    for known, run in groupby(heights, key=lambda v: v is not None):
        values = list(run)
        if known:
            points = [
                f"{strip.x(at + (k + 0.5) * step):.1f} {BASE - v * PLOT:.1f}"
                for k, v in enumerate(values)
                if v is not None
            ]
            d = "L".join(points if len(points) > 1 else points * 2)
            parts.append(d)
        at += len(values) * step
    d = "".join(f"M{part}" for part in parts)
    if d and not judged:
        return f'<path class="unjudged {name}" d="{d}"/>'
    halves = (("up", TOP_OF_PLOT - 3, PLOT / 2 + 3), ("down", TOP_OF_PLOT + PLOT / 2, PLOT / 2 + 3))
    return "".join(
        f'<clipPath id="{strip.names(name)}-{kind}"><rect x="0" y="{y}" width="{strip.wide}" height="{high}"/></clipPath>'
        f'<path class="{kind} {name}" clip-path="url(#{strip.names(name)}-{kind})" d="{d}"/>'
        for kind, y, high in halves
        if d
    )


def _ticks(strip: Strip) -> str:
    """Times under the plot, at least 60 pixels apart."""
    step = next(s for s in (0.5, 1, 2, 5, 10, 30, 60, 300, 600, 1800, 7200) if s * FPS * strip.scale >= 60 or s == 7200)
    parts = []
    k = ceil(strip.first / FPS / step - 1e-9)
    while k * step * FPS < strip.last - 1e-9:
        at = strip.x(k * step * FPS)
        parts.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{BASE}" y2="{BASE + 4}"/>')
        anchor = "middle" if at < strip.wide - RIGHT - 16 else "end"
        parts.append(f'<text class="s" x="{at:.1f}" y="{BASE + 16}" text-anchor="{anchor}">{clock(k * step)}</text>')
        k += 1
    return "".join(parts)


@dataclass(frozen=True)
class Box:
    """A word's box: its left edge and width in pixels, on which line below the plot, and the text in it."""

    left: float
    wide: float
    lane: int
    text: str


def _boxes(words: Sequence[HeardWord], strip: Strip) -> list[Box]:
    """Boxes of the words' durations, wider where the text needs it; on as many lines as it takes so that none touches another,
    and all inside the row."""
    boxes: list[Box] = []
    ends: list[float] = []  # of the last box on each line
    for word in words:
        text = word.text if len(word.text) <= LONGEST else f"{word.text[: LONGEST - 1]}…"
        text = MARKS[word.verdict] + text
        lasts = (word.end - word.start) * FPS * strip.scale
        wide = min(max(lasts, _width(text) + 2 * INSET), strip.wide - LEFT - RIGHT)
        left = max(LEFT, min(strip.x(word.start * FPS), strip.wide - RIGHT - wide))
        lane = next((k for k, end in enumerate(ends) if end + GAP <= left), len(ends))
        ends[lane : lane + 1] = [left + wide]
        boxes.append(Box(left, wide, lane, text))
    return boxes


def _word(word: HeardWord, box: Box) -> str:
    y = BASE + 24 + LANE * box.lane
    return (
        f'<g><title>{t(word.text)}</title><rect class="{KINDS[word.verdict]}" x="{box.left:.1f}" y="{y}" '
        f'width="{box.wide:.1f}" height="19" rx="3"/><text x="{box.left + INSET:.1f}" y="{y + 14}">{t(box.text)}</text></g>'
    )


def _width(text: str) -> float:
    """Pixels that a text may take at 12 pixels, in any usual font: rather too many than too few."""

    def one(letter: str) -> float:
        if east_asian_width(letter) in "WF":
            return 13.0
        return 4.8 if letter in "ijltfr.,:;'!| " else 11.5 if letter in "mwMW@%≠" else 9.2 if letter.isupper() else 7.6

    return sum(map(one, text))


def clock(seconds: float) -> str:
    """12.5 s, from a minute on 1:05."""
    if seconds < 60:
        return f"{seconds:g} s"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
