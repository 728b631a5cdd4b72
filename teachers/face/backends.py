"""What runs the networks of the face stage: OpenVINO, LiteRT or MediaPipe itself, behind one small interface.

OpenVINO and LiteRT run them inside our own tracking loop; MediaPipe's FaceLandmarker is the reference and needs nothing
but what the project needs anyway. They agree within hundredths of a pixel, not to the bit, so a store keeps to one.
"""

import importlib.util
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from teachers.base import TeacherError

# Fastest first. For each: its module, its distribution, and what to install, without what the project has already.
BACKENDS = {
    "openvino": ("openvino", "openvino", "openvino==2026.4.1 openvino-telemetry==2025.2.0"),
    "litert": ("ai_edge_litert", "ai-edge-litert", "ai-edge-litert==2.3.0 backports.strenum==1.2.8"),
    "mediapipe": ("mediapipe", "mediapipe", "mediapipe==1.2.2"),
}


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


def installed() -> list[str]:
    """Names of the backends whose package is installed here, fastest first."""
    return [name for name, (module, _, _) in BACKENDS.items() if importlib.util.find_spec(module) is not None]


def load(name: str | None, model: Path) -> Backend:
    """The backend of that name, None: the fastest installed one, on a face_landmarker.task.

    Raises TeacherError where the name is unknown, its package is missing (with the command that installs it), or the
    file is not such a task.
    """
    here = installed()
    if name is None and here:
        name = here[0]
    if name is None or name not in BACKENDS:
        raise TeacherError(
            f"unknown face backend '{name}' (known: {', '.join(BACKENDS)})"
            if name
            else f"none of {', '.join(BACKENDS)} is installed: pip install --no-deps {BACKENDS['openvino'][2]}"
        )
    if name not in here:
        raise TeacherError(
            f"face backend '{name}' is not installed on this node: pip install --no-deps {BACKENDS[name][2]}"
        )
    try:
        return _open(name, model)
    except (OSError, ValueError, RuntimeError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise TeacherError(f"face backend '{name}' cannot run {model}: {error}") from error


def _open(name: str, model: Path) -> Backend:
    if name == "mediapipe":
        from teachers.face.landmarker import MediaPipe

        return MediaPipe(model)
    from teachers.face.networks import LiteRt, OpenVino
    from teachers.face.tracking import Tracking

    return Tracking(name, OpenVino(model) if name == "openvino" else LiteRt(model))
