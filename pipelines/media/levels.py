"""Loudness of a sound, and silence at its ends, from samples at 16 kHz: numbers that a shortcut could use.

Silence lasts until the first sample above a level, as in the published finding (AVH-Align, CVPR 2025: |x| > 0.0005). A
lossy codec changes samples near zero and a microphone's noise may have any level, so several levels are tried.
"""

from __future__ import annotations

import math

import numpy as np

from store import layout

LEVELS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03)  # of full scale
SILENT_DBFS = -100.0  # for a sound of zeros; one step of 16 bits is -90


def column(stem: str, level: float) -> str:
    """Name of a silence's column: leading_silence_0003 for the level 0.003."""
    return f"{stem}_{f'{level:.5f}'.rstrip('0').replace('.', '')}"


COLUMNS = (
    "loudness",
    "peak",
    *(column(stem, level) for stem in ("leading_silence", "trailing_silence") for level in LEVELS),
)


class Levels:
    """Loudness, peak and silences of a sound that arrives in pieces, which are not kept."""

    def __init__(self) -> None:
        self.num = 0
        self.energy = 0.0
        self.peak = 0.0
        self.first: list[int | None] = [None] * len(LEVELS)  # first sample above each level
        self.last = [0] * len(LEVELS)  # number of samples up to the last one above it

    def add(self, samples: np.ndarray) -> None:
        """The next samples, i2 [n]."""
        if not len(samples):
            return
        size = np.abs(samples.astype(np.float64) / 32768)
        self.energy += float(np.square(size).sum())
        self.peak = max(self.peak, float(size.max()))
        for k, level in enumerate(LEVELS):
            above = np.flatnonzero(size > level)
            if len(above):
                self.last[k] = self.num + int(above[-1]) + 1
                if self.first[k] is None:
                    self.first[k] = self.num + int(above[0])
        self.num += len(samples)

    def values(self, before_s: float = 0.0) -> dict[str, float]:
        """Numbers by column, in seconds, dBFS and fractions of full scale; there are `before_s` of silence before the
        first sample.

        A sound that never exceeds a level counts as silent for its whole length, at both ends. Empty without samples.
        """
        if not self.num:
            return {}
        rms = math.sqrt(self.energy / self.num)
        found = {"loudness": 20 * math.log10(rms) if rms > 0 else SILENT_DBFS, "peak": self.peak}
        found["loudness"] = max(found["loudness"], SILENT_DBFS)
        for level, first, last in zip(LEVELS, self.first, self.last, strict=True):
            lead = self.num if first is None else first
            found[column("leading_silence", level)] = max(before_s, 0.0) + lead / layout.SAMPLE_RATE
            found[column("trailing_silence", level)] = (self.num - last) / layout.SAMPLE_RATE
        return found
