"""The interface between the face stage and its backends: a backend, a landmarker for one clip, and faces read from
frames."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np

MOST_SPOTS = 8  # of a search that are tried, the largest ones
# Logit of a face at a spot, by the landmark network. Measured: faces of 30 to 80 pixels have 13.6 and more; of 63 spots
# in noise one has 2.7, and the others less than 0, which is enough for a face that is followed already.
SURE_PRESENCE = 5.0


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

    def start(self, frame: np.ndarray, timestamp_ms: int, spots: Sequence[np.ndarray]) -> list[Reading]:
        """The faces at these spots (`Backend.search`) in the frame that was read last, where no face was found; they are
        followed from here on."""
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

    def search(self, frame: np.ndarray) -> Iterator[list[np.ndarray]]:
        """Spots of small faces, which a landmarker alone does not find (`detector.search`): lists of f4 [4, 2]."""
        ...


def faces_in(backend: Backend, picture: np.ndarray, num_faces: int = 1) -> list[Reading]:
    """The faces in a single picture, contiguous rgb u1 [height, width, 3]; small ones are searched for if there are no
    others, as the tracker does."""
    with backend.landmarker(num_faces) as landmarker:
        if faces := landmarker.read(picture, 0):
            return faces
        for spots in backend.search(picture):
            if faces := landmarker.start(picture, 0, spots):
                return faces
    return []
