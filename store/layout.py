"""The layout of a store: names, dtypes, units and fill values of its arrays, and its version.

A store is plain Zarr v3: two tables, `clips/` (one row per clip) and `frames/` (one row per frame, 1/25 s), beside
`words/` and `fit/`. This module has only names and numbers and does not access a disk. Sizes are chosen for training
windows of 75 frames (3 s): reading one takes 1.26 ms of processor time with inner chunks of 25 rows, 1.20 with 15
(which store 3 % more), 1.77 with 75, on 46,200 rows of real crops and sound (`python -m benchmarks store_reading
--chunks 15,25,75`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from concord.errors import ConcordError
from concord.frames import (
    AUDIO_PRESENT as AUDIO_PRESENT,
)
from concord.frames import (
    FACE as FACE,
)
from concord.frames import (
    FACE_DETECTED as FACE_DETECTED,
)
from concord.frames import (
    FACE_INTERPOLATED as FACE_INTERPOLATED,
)
from concord.frames import (
    FPS as FPS,
)
from concord.frames import (
    HELD as HELD,
)
from concord.frames import (
    IN_USE as IN_USE,
)
from concord.frames import (
    SAMPLE_RATE as SAMPLE_RATE,
)
from concord.frames import (
    SAMPLES_PER_FRAME as SAMPLES_PER_FRAME,
)
from concord.frames import (
    VOICE_ACTIVE as VOICE_ACTIVE,
)

FORMAT = "concord-av"
VERSION = 1

CHUNK = 25  # rows that are compressed together
SHARD = 4_200  # rows in one file: a multiple of CHUNK and of 75
CLIP_CHUNK = 16_384  # rows of a clips/ column in one file: 62 files a column for a million clips

REAL, FAKE, UNKNOWN = 0, 1, -1  # label, audio_fake, video_fake, fake

# name: (dtype, shape of a row). Embeddings and projections are added, with the widths of the store's teachers and fit.
FRAME_ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "mouth": ("u1", (96, 96)),  # grey mouth crop
    "audio": ("i2", (SAMPLES_PER_FRAME,)),  # mono sound of that frame
    "lips": ("f2", (40, 2)),  # x, y in pixels of the 256 x 256 mean-face frame, from the mean mouth centre, y down
    "blendshapes": ("f2", (52,)),
    "flags": ("u1", ()),  # bits of concord.frames; of earlier releases without HELD (`store.reading.held`)
    "fake": ("i1", ()),
    "similarity": ("f2", ()),  # soft label of the clip's own pair, 5-frame window, in [0, 1]; NaN before a fit
}
# The same of a second face, in rows of clips that have one; stores of earlier releases lack them.
SECOND_ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    f"{name}2": FRAME_ARRAYS[name] for name in ("mouth", "lips", "blendshapes", "flags")
}
# Arrays that a store has only if its first run asked for them (precompute.py --arrays).
OPTIONAL_ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "face": ("u1", (112, 112)),  # whole face, grey, upright, for the paper's student
}
EMBEDDINGS = ("asr", "vsr")
PROJECTIONS = ("asr_projection", "vsr_projection")
LEARNED_ARRAYS = (*PROJECTIONS, "similarity")  # what follows from a fit

# Names of the axes after the first, so that xarray and people know them.
AXES = {
    "mouth": ("y", "x"),
    "face": ("face_y", "face_x"),  # of other lengths than the mouth's
    "audio": ("sample",),
    "lips": ("point", "xy"),
    "mouth2": ("y", "x"),
    "lips2": ("point", "xy"),
    "blendshapes2": ("blendshape",),
    "blendshapes": ("blendshape",),
    "asr": ("asr_dim",),
    "vsr": ("vsr_dim",),
    "asr_projection": ("shared_dim",),
    "vsr_projection": ("shared_dim",),
}

# name: (dtype, value for "not known yet"). `done` is last on purpose: it is written last, and its length is the table's.
CLIP_ARRAYS: dict[str, tuple[str, Any]] = {
    "id": ("string", ""),  # stable: from corpus and relative path
    "path": ("string", ""),
    "corpus": ("string", ""),
    "split": ("string", ""),
    "method": ("string", ""),
    "category": ("string", ""),
    "group": ("string", ""),
    "identities": ("string", ""),  # JSON list
    "source": ("string", ""),  # where the clip is from, as its manifest says
    "label": ("i1", UNKNOWN),
    "audio_fake": ("i1", UNKNOWN),
    "video_fake": ("i1", UNKNOWN),
    "offset": ("i8", -1),  # first row in frames/; -1 = no slot
    "capacity": ("i4", 0),  # rows reserved
    "length": ("i4", 0),  # rows used
    "duration": ("f4", float("nan")),  # seconds
    "start_skew": ("f4", float("nan")),  # audio minus video start, seconds
    "quality": ("f4", float("nan")),  # share of frames with a face
    "num_faces": ("i2", UNKNOWN),  # the largest number seen at once
    "done": ("u1", 0),
}

LATER_COLUMNS = ("num_faces", "source")  # of clips/, that stores of earlier releases lack: not known there

WORD_ARRAYS: dict[str, str] = {"clip": "i4", "start": "f4", "end": "f4", "text": "string", "probability": "f4"}


SPLITS = ("train", "val", "test")  # a clip without one counts as train
LABELS = (UNKNOWN, REAL, FAKE)  # of clips and of frames
TABLES = ("clips", "frames")
STAGING = "_staging"  # the folder of batches and groups that are not in their place yet
CREATION = ".concord-av-creation.json"  # the mark of a store that is being made: {"files": [key]}


class StoreError(ConcordError):
    """A store cannot be used as requested; the text names the store, clip or array and says what to do."""


def labelled(lips_flags: np.ndarray, sound_flags: np.ndarray) -> np.ndarray:
    """Frames bool that have a soft label, by flags u1: a face that is not held on the picture side, a voice on the side
    of the sound."""
    return evident(lips_flags) & ((sound_flags & VOICE_ACTIVE) > 0)


def evident(lips_flags: np.ndarray) -> np.ndarray:
    """Frames bool whose lips are evidence, by flags u1: a face was detected, and the picture is not held."""
    seen: np.ndarray = (lips_flags & (FACE_DETECTED | HELD)) == FACE_DETECTED
    return seen


def fill_value(dtype: str) -> float | int:
    """The value of unwritten rows: NaN for floats, "unknown" for signed bytes (`fake`), else 0."""
    kind = dtype.lstrip("<>|=")
    return float("nan") if kind[0] == "f" else UNKNOWN if kind == "i1" else 0


def node_name(name: str) -> str:
    """A name as one Zarr node: names of corpora may hold "/" and other characters that have a meaning in Zarr.

    Inverse: urllib's `unquote`.
    """
    if not name:
        raise StoreError("an array or group in fit/ has an empty name")
    safe = name.replace("%", "%25").replace("/", "%2F").replace("\\", "%5C")
    if not safe.strip("."):
        safe = safe.replace(".", "%2E")
    return "%5F" + safe[1:] if safe.startswith("__") else safe
