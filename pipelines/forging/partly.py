"""The method that forges a stretch of an otherwise real clip: its mouth, or its speech."""

from __future__ import annotations

import numpy as np

from pipelines.forging import pictured, sounds
from pipelines.forging.kinds import Forged, Given, Run
from store.layout import SAMPLES_PER_FRAME

LENGTHS = 10, 30  # frames, 0.4 to 1.2 s
FADE = 160  # samples, 10 ms, of transition at both ends of forged sound


def make(given: Given) -> Forged:
    """Half of the clips get a new mouth for a stretch, half other speech, where somebody speaks."""
    part = _part(given)
    if given.rng.random() < 0.5:
        return Forged(pictures=pictured.rewritten(given, part), part=part, note="mouth-rewrite")
    instead = sounds.spoken_instead(given, given.other.sound)
    start, stop = (SAMPLES_PER_FRAME * k for k in part)
    share = np.zeros(len(instead))
    share[start:stop] = np.minimum(1.0, (np.minimum(np.arange(stop - start), np.arange(stop - start)[::-1]) + 1) / FADE)
    mixed = given.clip.sound + share * (instead.astype(np.float64) - given.clip.sound)
    return Forged(sound=np.rint(mixed).astype(np.int16), part=part, note="audio-swap")


def _part(given: Given) -> Run:
    """Frames of the window, within the output, with a frame of speech in their middle."""
    clip, rng = given.clip, given.rng
    low, high = LENGTHS
    length = int(rng.integers(low, min(high, (clip.num_frames - 2 * clip.trim) // 2) + 1))
    spoken = np.flatnonzero(clip.voice[clip.kept]) + clip.trim
    start = int(rng.choice(spoken)) - length // 2
    start = min(max(start, clip.kept.start), clip.kept.stop - length)
    return start, start + length
