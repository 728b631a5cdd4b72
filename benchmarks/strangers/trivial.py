"""Numbers of a clip that have nothing to do with forgery, and how well the best of them tells forged from real.

Of the file its packets are read, none is decoded: sizes, rates, codecs, and how long the sound lasts past the picture. Of the
evidence: length, share of frames with a face, loudness and silences. Their figures are those of the audit
(`pipelines.audit.shortcuts`): each number in its better direction, since a model would find it.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from benchmarks.strangers.listed import Listed
from pipelines.containers.clock import BROKEN
from pipelines.media import levels
from pipelines.media.files import MediaError, choose_stream, open_media
from store import layout
from store.place import is_url
from student.experiment import trivial
from student.experiment.trivial import Best
from student.predict.evidence import Evidence

log = logging.getLogger(__name__)

NUMBERS = (
    "length_difference", "length_difference_abs", "duration", "sound_duration", "frame_count", "frame_rate", "width",
    "height", "bit_rate", "sample_rate", "start_skew", "quality", *levels.COLUMNS,
)  # fmt: skip
WORDS = ("codec", "audio_codec", "encoder")


def of_clip(evidence: Evidence, audio: np.ndarray) -> dict[str, float | str]:
    """Numbers from the evidence and the sound i2 [640 * frames]."""
    level = levels.Levels()
    level.add(audio)
    found: dict[str, float | str] = {
        "duration": evidence.clip.num_frames / layout.FPS,
        "quality": float(evidence.face.mean()),
        **level.values(),
    }
    if math.isfinite(evidence.start_skew_s):
        found["start_skew"] = round(evidence.start_skew_s, 4)
    return found


def of_file(path: str) -> dict[str, float | str]:
    """Numbers from a file's header and packets; {} if they cannot be read here."""
    if is_url(path):
        return {}
    try:
        with open_media(path) as container:
            picture = choose_stream(container, "video", path)
            sound = choose_stream(container, "audio", path)
            first: dict[int, Fraction] = {}
            last: dict[int, Fraction] = {}
            count = 0
            for packet in container.demux(picture, sound):
                if packet.pts is None or not packet.size:
                    continue
                base, k = Fraction(packet.time_base), packet.stream.index
                begin, end = packet.pts * base, (packet.pts + (packet.duration or 0)) * base
                first[k], last[k] = min(begin, first.get(k, begin)), max(end, last.get(k, end))
                count += k == picture.index
            places = picture.index, sound.index  # not to be asked once the file is closed
            program = container.metadata.get("encoder", container.metadata.get("software", "")) or "none"
            words = {
                "width": picture.width,
                "height": picture.height,
                "codec": picture.codec_context.name,
                "audio_codec": sound.codec_context.name,
                "sample_rate": sound.codec_context.sample_rate,
                "encoder": program,
            }
    except (MediaError, *BROKEN, OSError, ValueError, ArithmeticError) as error:
        log.debug("%s: %s", path, error)
        return {}
    found: dict[str, float | str] = dict(words)
    # Sound before zero is the codec's own beginning, which players drop.
    seen, heard = (float(last[k] - max(first[k], Fraction(0))) if k in first else 0.0 for k in places)
    if seen > 0:
        found |= {"duration": round(seen, 4), "frame_count": count, "frame_rate": round(count / seen, 3)}
        found["bit_rate"] = round(8 * os.path.getsize(path) / max(seen, heard))
    if seen > 0 and heard > 0:
        difference = round(seen - heard, 4)
        found |= {"sound_duration": round(heard, 4), "length_difference": difference}
        found["length_difference_abs"] = abs(difference)
    return found


def best(listed: Sequence[Listed], numbers: Sequence[dict[str, float | str]], draws: int) -> dict[str, Best]:
    """The best number for each method and for "all" forged clips, against all real clips among them."""
    import pandas as pd

    columns: dict[str, Any] = {
        name: np.array([own.get(name, np.nan) for own in numbers], np.float64) for name in NUMBERS
    }
    columns |= {name: pd.array([own.get(name) for own in numbers], dtype=object) for name in WORDS}
    return trivial.best([replace(one.row, method=one.method) for one in listed], pd.DataFrame(columns), draws)
