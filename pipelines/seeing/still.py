"""Held pictures of a watched clip: the bit of its frames (`concord.arrays.held`), and the sentence for a person."""

from __future__ import annotations

import numpy as np

from concord.arrays.held import held
from pipelines.media.facts import Fact
from store import layout

TOLD = 13  # held frames with a voice, half a second, that a person should know of
MOST = 0.5  # share of held frames of which a person should know without a voice, too
SHORT = 5  # frames: shorter passages are not listed, and shorter pauses do not divide one
LISTED = 3  # passages


def mark(mouth: np.ndarray, flags: np.ndarray) -> np.ndarray:
    """Flags u1 [frames] with the bit of held pictures, from mouth crops u1 [frames, 96, 96]."""
    return np.where(held(mouth, flags), flags | layout.HELD, flags & ~np.uint8(layout.HELD)).astype(np.uint8)


def facts(flags: np.ndarray) -> tuple[Fact, ...]:
    """What a person should know of the held pictures of a clip; nothing where somebody sits still in a pause."""
    stands = (flags & layout.HELD) > 0
    spoken = stands & ((flags & layout.VOICE_ACTIVE) > 0)
    faced = (flags & layout.FACE) > 0
    if spoken.sum() < TOLD and stands.sum() < max(MOST * faced.sum(), 1):
        return ()
    found = [p for p in passages(stands) if spoken[slice(*p)].any() or p[1] - p[0] >= layout.FPS]
    if len(found) == 1 and found[0][1] - found[0][0] >= len(flags) - 2 * SHORT:
        return (Fact("held_pictures", "the picture stands still throughout"),)
    listed = ", ".join(f"from {a / layout.FPS:.1f} s to {b / layout.FPS:.1f} s" for a, b in found[:LISTED])
    if len(found) > LISTED or not found:
        share = f"for {stands.sum() / layout.FPS:.1f} of {len(flags) / layout.FPS:.1f} s"
        listed = f"{share}, first {listed.partition(', ')[0]}" if found else share
    return (Fact("held_pictures", f"the picture stands still {listed}"),)


def passages(stands: np.ndarray) -> list[tuple[int, int]]:
    """[start, stop) of the passages of a bool [frames], joined over short pauses; short passages are left out."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], stands, [False]]).astype(np.int8)))
    joined: list[list[int]] = []
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if joined and start - joined[-1][1] < SHORT:
            joined[-1][1] = stop
        else:
            joined.append([start, stop])
    return [(start, stop) for start, stop in joined if stop - start >= SHORT]
