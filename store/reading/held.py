"""Flag bit 5, held pictures, for stores of earlier releases, whose flags lack it.

A store that has the bit says so in its root attribute `held_pictures`. For another one the bit is computed from the mouth
crops whenever flags are read: whole clips at a time, each once, 0.06 ms per frame and the reading of its crops.
`precompute.py --refit` writes the bit and the attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from concord.arrays.held import held
from store import layout

Read = Callable[[int, int, Sequence[str]], dict[str, np.ndarray]]


class HeldPictures:
    """The bits of one opened store, kept by clip; may be used by many threads."""

    def __init__(self) -> None:
        self._bits: dict[int, np.ndarray] = {}  # packed

    def add(self, clip: int, length: int, read: Read, flags: np.ndarray, start: int) -> None:
        """Set the bit in `flags`, which are those of a clip's frames from `start` on; `read` reads its frames."""
        if clip not in self._bits:
            own = read(0, length, ["flags"])["flags"]
            self._bits[clip] = np.packbits(held(_Crops(read, length), own))
        bits = np.unpackbits(self._bits[clip], count=length)[start : start + len(flags)]
        flags |= bits * np.uint8(layout.HELD)


class _Crops:
    """A clip's mouth crops, of which only the frames in use are in memory."""

    def __init__(self, read: Read, length: int) -> None:
        self._read, self._length = read, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> np.ndarray:
        return self._read(part.start, part.stop, ["mouth"])["mouth"]
