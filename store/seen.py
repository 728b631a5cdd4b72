"""Which clips a fit or a detector has learned from, so that a figure on such clips can say so.

A clip has two keys of 64 bits: one of its id, and one of its stored sound, which is the same in another store and under
another name. A clip counts as seen if either is among those learned from: the same clip, or a clip with exactly the
same sound. A re-encoded copy is not recognised. Keys are kept in `Fit.seen` (with the fit, wherever it goes) and in a
detector's header.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from concord.text import counted
from store.reader import Reader

MOST = 20_000  # clips whose keys fit into a detector's header (430 kB)
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Seen:
    """How many `of` so many clips were seen; `clips` is None if it is not recorded."""

    clips: int | None
    of: int

    @classmethod
    def count(cls, seen: np.ndarray | None, rows: np.ndarray) -> Seen:
        """From `known` and the rows [n] of distinct clips that it is about."""
        return cls(None if seen is None else int(seen.sum()), len(rows))

    def text(self, who: str = "the fit") -> str:
        """One clause: "the fit has seen 3 of these 60 clips"."""
        these = f"{self.of:,} clip{'' if self.of == 1 else 's'}"
        if self.clips is None:
            return f"it is not recorded which of these {these} {who} has seen"
        return f"{who} has seen {self.clips or 'none':{',' if self.clips else ''}} of these {these}"

    def to_json(self) -> dict[str, int | None]:
        return {"seen": self.clips, "of": self.of}


def keys(reader: Reader, rows: Iterable[int]) -> np.ndarray:
    """Keys u8 [n, 2] of clips by row of the table: of the id, and of the sound (0 if it is silent, or not there)."""
    found = [(_id_key(reader, row), _sound_key(reader, row)) for row in map(int, rows)]
    return np.array(found, np.uint64).reshape(-1, 2)


def known(taught: np.ndarray | None, reader: Reader, rows: np.ndarray) -> np.ndarray | None:
    """Which clips bool [n] are among those with the keys `taught` [m, 2]; None if `taught` is. The sound is read only of
    clips whose id is not among them."""
    if taught is None:
        return None
    ids, sounds = (set(column.tolist()) - {0} for column in np.asarray(taught, np.uint64).reshape(-1, 2).T)
    found = np.zeros(len(rows), bool)
    for k, row in enumerate(map(int, rows)):
        found[k] = _id_key(reader, row) in ids or (bool(sounds) and _sound_key(reader, row) in sounds)
    return found


def by_fit(reader: Reader, rows: np.ndarray) -> np.ndarray | None:
    """Which clips bool [n] the store's fit has learned from; None if there is no fit, or it does not say."""
    fit = reader.fit
    return known(fit.seen if fit is not None else None, reader, rows)


def sentence(parts: Mapping[str, Seen]) -> str:
    """What `by_split` found, in one clause."""
    if any(one.clips is None for one in parts.values()):
        return f"it is not recorded which of the {sum(one.of for one in parts.values()):,} clips the fit has seen"
    return "the fit has seen " + ", ".join(
        f"{one.clips:,} of {counted(one.of, f'{name} clip')}" for name, one in parts.items()
    )


def by_split(reader: Reader) -> dict[str, Seen]:
    """What the store's fit has seen of the done clips of each split that has some; an empty split is train."""
    clips = reader.clips
    names = np.where(clips["split"].astype(str) == "", PARTS[0], clips["split"].astype(str))
    found = {}
    for split in PARTS:
        rows = np.flatnonzero((clips["done"] == 1) & (names == split))
        if len(rows):
            found[split] = Seen.count(by_fit(reader, rows), rows)
    return found


def packed(taught: np.ndarray) -> str:
    """Keys u8 [n, 2] as text for a header."""
    return base64.b64encode(np.ascontiguousarray(taught, "<u8").tobytes()).decode()


def unpacked(text: object) -> np.ndarray | None:
    """The inverse of `packed`; None for anything else, as in a header that does not say."""
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else None
    except (binascii.Error, ValueError):
        data = None
    return np.frombuffer(data, "<u8").reshape(-1, 2) if data is not None and len(data) % 16 == 0 else None


def _key(data: bytes) -> int:
    """64 bits that are not 0."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little") or 1


def _id_key(reader: Reader, row: int) -> int:
    return _key(str(reader.clips["id"][row]).encode("utf-8", "backslashreplace"))


def _sound_key(reader: Reader, row: int) -> int:
    if not reader.clips["done"][row]:
        return 0
    sound = reader.frames(row, 0, int(reader.clips["length"][row]), ["audio"])["audio"]
    return _key(np.ascontiguousarray(sound, "<i2").tobytes()) if sound.any() else 0
