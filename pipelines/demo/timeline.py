"""A clip's timeline as a picture: mouth crops, similarity of lips and voice, waveform, and the words that were heard."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

import store
from concord.text import label
from store import layout, output

COMMAND = "pipelines.demo"
CROPS = 15  # mouth crops in the strip
INK, MUTED, GOOD, BAD = "#1b1b1f", "#8a8f98", "#1f7a4d", "#b3261e"


def timeline(reader: store.Reader, clip: int, file: Path, title: str) -> None:
    """Draw finished clip `clip` of a fitted store to `file` (PNG)."""
    from matplotlib.figure import Figure

    row = reader.clip(clip)
    got = reader.frames(clip, 0, row.length, ["mouth", "audio", "flags"])
    voiced = (got["flags"] & layout.VOICE_ACTIVE > 0) & (got["flags"] & layout.HELD == 0)
    frame, second = (reader.pair_similarity(clip, clip, window=w) for w in (5, 25))
    seconds = row.length / layout.FPS
    figure = Figure(figsize=(11, 4.6), dpi=120, layout="constrained")
    strip, curve, sound = figure.subplots(3, 1, height_ratios=[1.05, 2.2, 1.2], sharex=True)

    picks = np.linspace(0, row.length - 1, min(CROPS, row.length)).round().astype(int)
    width = seconds / len(picks)
    for k, t in enumerate(picks):
        strip.imshow(
            got["mouth"][t], cmap="gray", vmin=0, vmax=255, extent=(k * width, (k + 1) * width, 0, 1), aspect="auto"
        )
    strip.set(ylim=(0, 1), yticks=[])
    strip.set_title(label(title), loc="left", fontsize=11, color=INK)

    time = (np.arange(row.length) + 0.5) / layout.FPS
    for start, stop in _runs(~voiced):
        curve.axvspan(start / layout.FPS, stop / layout.FPS, color="#eceef1", lw=0)
    curve.axhline(0.5, color=MUTED, lw=0.8, ls=(0, (4, 3)))
    curve.plot(time, np.where(voiced, frame, np.nan), color=MUTED, lw=1.1, label="5 frames (soft label)")
    curve.plot(time, np.where(voiced, second, np.nan), color=INK, lw=2.2, label="1 second")
    curve.fill_between(time, 0.5, second, where=voiced & (second >= 0.5), color=GOOD, alpha=0.18, lw=0)
    curve.fill_between(time, 0.5, second, where=voiced & (second < 0.5), color=BAD, alpha=0.18, lw=0)
    curve.set(ylim=(-0.02, 1.02), ylabel="lips and voice\nbelong together")
    place = "lower right" if np.nanmean(np.where(voiced, second, np.nan)) >= 0.5 else "upper right"
    curve.legend(loc=place, fontsize=8, frameon=False, ncols=2)

    wave = got["audio"].reshape(-1, 64).astype(np.float32)
    peak = max(float(np.abs(wave).max()), 1.0)
    at = np.arange(len(wave)) * 64 / layout.SAMPLE_RATE
    sound.fill_between(at, wave.min(1) / peak, wave.max(1) / peak, color="#6b7a99", lw=0)
    _words(sound, reader, clip, second, voiced)
    sound.set(ylim=(-1.0, 2.0), yticks=[], xlim=(0, seconds), xlabel="seconds")
    for axis in (strip, curve, sound):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata=output.picture_metadata(COMMAND, "png"))
    output.write(file, drawn.getvalue())


def _words(axis, reader: store.Reader, clip: int, second: np.ndarray, voiced: np.ndarray) -> None:
    """Recognised words above the waveform, coloured by the similarity while they are spoken."""
    if not reader.has_words:
        return
    for k, word in enumerate(reader.words(clip)):
        first = min(int(word["start"] * layout.FPS), len(second) - 1)
        span = slice(first, max(first + 1, int(np.ceil(word["end"] * layout.FPS))))
        agree = float(np.mean(second[span])) if voiced[span].any() else float("nan")
        colour = MUTED if np.isnan(agree) else GOOD if agree >= 0.5 else BAD
        low = 1.15 if k % 2 == 0 else 1.55  # two rows, so that short words do not overlap
        axis.plot([word["start"], word["end"]], [low - 0.06] * 2, color=colour, lw=1.5, solid_capstyle="butt")
        axis.text(
            (word["start"] + word["end"]) / 2,
            low,
            label(word["text"].strip()),
            ha="center",
            va="bottom",
            fontsize=9,
            color=colour,
        )


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Start and stop of each run of true values."""
    edges = np.flatnonzero(np.diff(np.r_[0, mask.astype(np.int8), 0]))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
