"""The interface between the face stage and its backends: a backend, a landmarker for one clip, and faces read from
frames."""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np


@dataclass(frozen=True)
class Reading:
    """One face in one frame."""

    points: np.ndarray  # f4 [478, 2] in fractions of the frame's width and height
    blendshapes: Callable[
        [], np.ndarray
    ]  # f4 [52], 0 to 1; called clip by clip, so that the network stays in the cache


class Landmarker(Protocol):
    """Reads one clip. A context manager; no clip affects the next one."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def read(self, frame: np.ndarray, timestamp_ms: int) -> list[Reading]:
        """The faces in the next frame, which is contiguous rgb, u1 [height, width, 3]; times increase from 0."""
        ...


class Backend(Protocol):
    """One instance reads many clips, one after the other."""

    name: str

    def landmarker(self, num_faces: int) -> Landmarker:
        """A reader for one clip that follows up to num_faces at once; a single face is smoothed."""
        ...

    def count(self, frame: np.ndarray) -> int:
        """How many faces a detector sees in a contiguous rgb frame, u1 [height, width, 3]."""
        ...
