"""Files as people have them, made from any clip: `make(kind, clip, seed, folder)`."""

from pathlib import Path

import numpy as np

from made import clocks, shapes, voices
from made.kinds import KINDS, Made
from made.writing import Clip, Track, Video, read, write

__all__ = ["KINDS", "Clip", "Made", "base", "clocks", "make", "read", "shapes", "voices"]


def make(kind: str, clip: Clip, seed: int, folder: Path) -> Made:
    """A file of a kind, with the parameters that the seed draws."""
    return KINDS[kind](clip, np.random.default_rng([seed, *kind.encode()]), folder)


def base(clip: Clip, folder: Path) -> Path:
    """The clip itself as an ordinary file."""
    return write(folder / "base.mov", Video(clip.pictures), [Track(clip.sound[None], codec="pcm_s16le")])
