"""The picture of a video's speech: waveform, similarity under it, heard words under that, as SVG in rows of a few seconds.

Stretches that cannot be judged are shaded and named, and what disagrees is told by a mark as well as by its colour. Where the
similarity is calibrated for other people alone, one colour says nothing of good or bad, and there is no middle line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import ceil
from typing import Any

import numpy as np

from concord.text import html as t
from teachers.base import FPS, SAMPLE_RATE

ROW_S = 6.0  # most seconds in a row: words stay readable
LONG_S = 240.0  # from here on one row for all of it, of one-second similarities and without words
WIDTH, LEFT, RIGHT = 760, 66, 6
WAVE, PLOT, WORDS = 46, 96, 68  # heights of the three bands
TOP = 6
LANES = 3  # of words
MARKS = {"agrees": "", "unclear": "? ", "disagrees": "≠ ", "not seen": "· ", "not judged": ""}
KINDS = {
    "agrees": "yes",
    "unclear": "maybe",
    "disagrees": "no",
    "not seen": "none",
    "not judged": "none",
}  # class names

STYLE = """
.speech svg{display:block;width:100%;min-width:34rem;height:auto;margin:.4rem 0}
.speech .wave{fill:var(--p0)}
.speech .mute{fill:var(--rest)}
.speech .axis,.speech .half{stroke:var(--line);stroke-width:1}
.speech .half{stroke:var(--soft);stroke-dasharray:3 3}
.speech .up,.speech .down{fill:none;stroke:var(--good);stroke-width:2.5;stroke-linejoin:round}
.speech .down{stroke:var(--bad)}
.speech .unjudged{fill:none;stroke:var(--p0);stroke-width:2.5;stroke-linejoin:round}
.speech .similarity_moved{stroke-dasharray:6 4}
.speech text{fill:var(--ink);font:12px system-ui,sans-serif}
.speech .s{fill:var(--soft);font-size:11px}
.speech rect.yes{fill:color-mix(in srgb,var(--good) 22%,var(--card));stroke:var(--good)}
.speech rect.maybe{fill:var(--card);stroke:var(--warn);stroke-dasharray:4 2}
.speech rect.no{fill:color-mix(in srgb,var(--bad) 25%,var(--card));stroke:var(--bad);stroke-width:2}
.speech rect.none{fill:var(--rest);stroke:none}
"""


def figure(said: Mapping[str, Any], audio: np.ndarray | None) -> str:
    """Rows of SVG for an answer with a timeline; `audio` i2 [640 * frames] for the waveform, if it is at hand."""
    line = said["timeline"]
    duration = len(line) / FPS
    rows = 1 if duration > LONG_S else ceil(duration / ROW_S)
    per_row = ceil(len(line) / rows)
    level = max(1.0, float(np.abs(audio.astype(np.int32)).max())) if audio is not None and len(audio) else 1.0
    return "".join(
        _row(said, first, min(first + per_row, len(line)), per_row, audio, level)
        for first in range(0, len(line), per_row)
    )


def _row(said: Mapping[str, Any], first: int, last: int, per_row: int, audio: np.ndarray | None, level: float) -> str:
    """Frames first to last, in a row that has room for `per_row`."""
    scale = (WIDTH - LEFT - RIGHT) / per_row  # pixels a frame

    def x(frame: float) -> float:
        return LEFT + (frame - first) * scale

    plot = TOP + WAVE + 8
    base = plot + PLOT
    short = per_row <= LONG_S * FPS
    judged = said["calibration"]["teachers"]
    parts = [_gaps(said["timeline"], first, last, x, plot)]
    if audio is not None:
        parts.append(_wave(audio, first, last, x, level))
    lines = ((1, "agree"), (0.5, ""), (0, "disagree")) if judged else ((1, "more alike"), (0, "less alike"))
    for value, name in lines:
        y = base - value * PLOT
        kind = "half" if value == 0.5 else "axis"
        parts.append(f'<line class="{kind}" x1="{LEFT}" x2="{x(last):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="s" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
    parts.append(f'<text class="s" x="{LEFT - 8}" y="{TOP + WAVE / 2 + 4:.1f}" text-anchor="end">sound</text>')
    parts.append(_curve(said["timeline"], first, last, x, plot, "similarity" if short else "similarity_1s", judged))
    parts.append(_curve(said["timeline"], first, last, x, plot, "similarity_moved", judged))
    parts.append(_ticks(first, last, scale, x, base))
    height = base + 20
    if short:
        words = [w for w in said["words"] if first <= (w["start"] + w["end"]) / 2 * FPS < last]
        parts.append(_words(words, x, base + 24))
        height += WORDS if words else 0
    says = f"Seconds {first / FPS:.1f} to {last / FPS:.1f}: sound, and how well lips and voice agree"
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{says}">{"".join(parts)}</svg>'


def _wave(audio: np.ndarray, first: int, last: int, x: Any, level: float) -> str:
    """The sound's peaks, mirrored, one for every two pixels."""
    per_frame = SAMPLE_RATE // FPS
    piece = np.abs(audio[first * per_frame : last * per_frame].astype(np.int32))
    bins = max(1, int((x(last) - x(first)) / 2))
    edges = np.linspace(0, len(piece), bins + 1).astype(int)[:-1]
    peaks = np.maximum.reduceat(piece, edges) / level * (WAVE / 2) if len(piece) else np.zeros(1)
    middle, step = TOP + WAVE / 2, (x(last) - x(first)) / bins
    across = [x(first) + (k + 0.5) * step for k in range(bins)]
    above = [f"{a:.1f} {middle - max(p, 0.5):.1f}" for a, p in zip(across, peaks, strict=True)]
    below = [f"{a:.1f} {middle + max(p, 0.5):.1f}" for a, p in zip(across, peaks, strict=True)]
    return f'<path class="wave" d="M{"L".join(above + below[::-1])}Z"/>'


def _gaps(line: Sequence[Mapping[str, Any]], first: int, last: int, x: Any, plot: float) -> str:
    """Shaded stretches without face or voice, named where there is room."""
    parts = []
    why = ["" if m["face"] and m["voice"] else "no face" if m["voice"] else "no voice" for m in line[first:last]]
    at = first
    for name, run in groupby(why):
        stop = at + len(list(run))
        if name:
            wide = x(stop) - x(at)
            parts.append(f'<rect class="mute" x="{x(at):.1f}" y="{plot}" width="{wide:.1f}" height="{PLOT}"/>')
            if wide > 52:
                middle = (x(at) + x(stop)) / 2
                parts.append(
                    f'<text class="s" x="{middle:.1f}" y="{plot + PLOT - 8}" text-anchor="middle">{name}</text>'
                )
        at = stop
    return "".join(parts)


def _curve(
    line: Sequence[Mapping[str, Any]], first: int, last: int, x: Any, plot: float, name: str, judged: bool
) -> str:
    """The similarity where there is one: green above the middle and red below it or, not `judged`, of one colour."""
    step = max(1, (last - first) // 1400)
    parts, at = [], first
    for known, run in groupby(line[first:last:step], key=lambda m: m[name] is not None):
        values = [m[name] for m in run]
        if known:
            points = [f"{x(at + (k + 0.5) * step):.1f} {plot + (1 - v) * PLOT:.1f}" for k, v in enumerate(values)]
            d = "L".join(points if len(points) > 1 else points * 2)
            parts.append(d)
        at += len(values) * step
    d = "".join(f"M{part}" for part in parts)
    if d and not judged:
        return f'<path class="unjudged {name}" d="{d}"/>'
    halves = (("up", plot - 3, PLOT / 2 + 3), ("down", plot + PLOT / 2, PLOT / 2 + 3))
    return "".join(
        f'<clipPath id="{name}-{kind}{first}"><rect x="0" y="{y}" width="{WIDTH}" height="{high}"/></clipPath>'
        f'<path class="{kind} {name}" clip-path="url(#{name}-{kind}{first})" d="{d}"/>'
        for kind, y, high in halves
        if d
    )


def _ticks(first: int, last: int, scale: float, x: Any, base: float) -> str:
    """Times under the plot, at least 60 pixels apart."""
    step = next(s for s in (0.5, 1, 2, 5, 10, 30, 60, 300, 600, 1800, 7200) if s * FPS * scale >= 60 or s == 7200)
    parts = []
    k = ceil(first / FPS / step - 1e-9)
    while k * step * FPS < last - 1e-9:
        at = x(k * step * FPS)
        parts.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{base}" y2="{base + 4}"/>')
        parts.append(f'<text class="s" x="{at:.1f}" y="{base + 16}" text-anchor="middle">{clock(k * step)}</text>')
        k += 1
    return "".join(parts)


def _words(words: Sequence[Mapping[str, Any]], x: Any, top: float) -> str:
    """Words in boxes as long as they last, on LANES lines by turns, so that a short word's text does not meet the next."""
    boxes, texts = [], []
    for k, word in enumerate(words):
        left, right, y = x(word["start"] * FPS), x(word["end"] * FPS), top + 22 * (k % LANES)
        said = MARKS[word["verdict"]] + word["text"]
        boxes.append(
            f'<rect class="{KINDS[word["verdict"]]}" x="{left:.1f}" y="{y}" width="{max(right - left, 4):.1f}" '
            'height="19" rx="3"/>'
        )
        texts.append(f'<text x="{left + 5:.1f}" y="{y + 14}">{t(said)}</text>')
    return "".join(boxes + texts)


def clock(seconds: float) -> str:
    """12.5 s, from a minute on 1:05."""
    if seconds < 60:
        return f"{seconds:g} s"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
