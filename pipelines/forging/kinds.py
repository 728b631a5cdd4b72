"""What a forging method is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from concord.errors import ConcordError
from pipelines.forging.reading import Clip

if TYPE_CHECKING:
    from pipelines.forging.speaking import Speaker

Run = tuple[int, int]  # frames [start, stop)


class NoDonor(ConcordError):
    """A method needs another clip, and there is none that it may take."""

    reason = "no_donor"


@dataclass(frozen=True)
class Given:
    """A real clip with its pictures, the donor that was drawn for it (without pictures; None if there is none), and the tools
    of the process. Every random choice comes from `rng`, which depends on seed, clip and method alone."""

    clip: Clip
    donor: Clip | None
    rng: np.random.Generator
    speaker: Speaker

    @property
    def other(self) -> Clip:
        """The donor. Raises NoDonor."""
        if self.donor is None:
            raise NoDonor("it needs another clip to take from, and no other clip of this split can be used; add clips")
        return self.donor


@dataclass(frozen=True)
class Forged:
    """What a method changed, for all frames of the window: `pictures` u1 [frames, height, width, 3] or None if they are the
    clip's own; `sound` i2 [640 * frames] or None. `part` are the frames [start, stop) that are forged, None for all."""

    pictures: np.ndarray | None = None
    sound: np.ndarray | None = None
    part: Run | None = None
    used_donor: bool = True
    note: str = ""  # what was drawn, in words


@dataclass(frozen=True)
class Method:
    """A way of forging: its name, its function, and what it does in a sentence."""

    name: str
    make: Callable[[Given], Forged]
    does: str
    speaks: bool = False  # whether it needs the synthetic voice
