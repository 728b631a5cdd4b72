"""What the face stage needs of what runs the networks: a backend, a landmarker for one clip, and faces read from frames."""

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np


@dataclass(frozen=True)
class Reading:
    """One face in one frame."""

    points: np.ndarray  # f4 [478, 2] in shares of the frame's width and height
    blendshapes: Callable[[], np.ndarray]  # f4 [52], 0 to 1; asked for a clip at a time, the network stays in the cache


class Landmarker(Protocol):
    """Reads one clip. A context manager; what one clip showed has no effect on the next."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def read(self, frame: np.ndarray, timestamp_ms: int) -> list[Reading]:
        """The faces in the next frame, which is contiguous rgb, u1 [height, width, 3]; times rise from 0."""
        ...


class Backend(Protocol):
    """One instance serves many clips, one after the other."""

    name: str

    def landmarker(self, num_faces: int) -> Landmarker:
        """A reader for one clip that follows up to num_faces at once, smoothed where that is one."""
        ...

    def count(self, frame: np.ndarray) -> int:
        """How many faces a detector sees in a contiguous rgb frame, u1 [height, width, 3]."""
        ...
