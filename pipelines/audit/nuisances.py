"""Nuisances: properties of a clip besides its content, such as lengths and rates, as numbers that a shortcut could use.

`listed` takes them from the corpus's own lists, so it needs no media and repeats the lists, right or wrong. Every
producer returns one table row per manifest row in the same order, NaN for unknown values; `MEANS` describes each
column.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipelines.corpora.manifest import Row
from pipelines.media.facts import KINDS

if TYPE_CHECKING:
    import pandas as pd

# name (or what it begins with): (what it is, unit)
MEANS = {
    "length_difference": ("length of the picture minus length of the sound", "s"),
    "length_difference_abs": ("absolute difference of the lengths of picture and sound", "s"),
    "duration": ("length of the picture", "s"),
    "sound_duration": ("length of the sound", "s"),
    "frame_count": ("number of frames", ""),
    "leading_silence": ("silence before the first sound", "s"),
    "trailing_silence": ("silence after the last sound", "s"),
    "loudness": ("loudness of the sound", "dBFS"),
    "peak": ("highest sample of the sound", ""),
    "sample_rate": ("samples of sound per second", "Hz"),
    "frame_rate": ("frames in a second", "fps"),
    "width": ("width of the picture", "pixels"),
    "height": ("height of the picture", "pixels"),
    "codec": ("coding of the picture", ""),
    "audio_codec": ("coding of the sound", ""),
    "bit_rate": ("bits in a second", "bit/s"),
    "encoder": ("the program that wrote the file", ""),
    "face_size": ("size of the face", "pixels"),
    "start_skew": ("start of the sound minus start of the picture", "s"),
    "quality": ("share of frames in which a face was found", ""),
    "soundless_start": ("picture before the sound begins", "s"),
    "soundless_end": ("picture after the sound has ended", "s"),
    "has_several_shots": ("whether the picture jumps", ""),
    **{f"has_{kind}": (f"whether this is so: {text.split(';')[0].rstrip('.')}", "") for kind, text in KINDS.items()},
    "together": ("everything in this list at once, in a small model", ""),
}


def means(nuisance: str) -> str:
    """A short description of a nuisance: "silence before the first sound (level 0.005)"."""
    if nuisance in MEANS:
        return MEANS[nuisance][0]
    stem, _, level = nuisance.rpartition("_")
    if stem in MEANS:
        digits = level.replace(".", "")
        level = f"0.{digits[1:]}" if digits.isdigit() and digits.startswith("0") else level
        return f"{MEANS[stem][0]} (level {level})"
    return nuisance.replace("_", " ")


def listed(rows: Sequence[Row]) -> pd.DataFrame:
    """Nuisances from the `listed_` fields of manifest rows: float columns [rows], NaN if the list does not say.

    length_difference is listed_frames / listed_fps - listed_samples / listed_sample_rate in seconds: picture minus sound,
    with the rates that the list claims. No file is opened.
    """
    import pandas as pd

    frames, fps = _column(rows, "listed_frames"), _rate(_column(rows, "listed_fps"))
    samples, sample_rate = _column(rows, "listed_samples"), _rate(_column(rows, "listed_sample_rate"))
    picture, sound = frames / fps, samples / sample_rate
    # Rounding errors of floats must not rank clips of equal lengths.
    difference = np.round(picture - sound, 9)
    return pd.DataFrame(
        {
            "length_difference": difference,
            "length_difference_abs": np.abs(difference),
            "duration": picture,
            "sound_duration": sound,
            "frame_count": frames,
            "frame_rate": fps,
            "sample_rate": sample_rate,
        }
    )


def facts(kinds: Sequence[Collection[str] | None]) -> dict[str, np.ndarray]:
    """Columns of facts, 1 or 0, from the kinds of each clip's faults (None: not known, so NaN), for the facts that some
    clip has: a fact may be a shortcut, too."""
    names = [kind for kind in (*KINDS, "several_shots") if any(kind in own for own in kinds if own is not None)]
    return {f"has_{kind}": np.array([np.nan if own is None else float(kind in own) for own in kinds]) for kind in names}


def _column(rows: Sequence[Row], name: str) -> np.ndarray:
    return np.array([np.nan if (value := getattr(row, name)) is None else value for row in rows], np.float64)


def _rate(values: np.ndarray) -> np.ndarray:
    """Rates of 0 or less count as unknown."""
    return np.where(values > 0, values, np.nan)
