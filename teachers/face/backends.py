"""The backends that run the networks of the face stage: OpenVINO, LiteRT or MediaPipe itself, behind one small
interface.

OpenVINO and LiteRT run them inside this project's own tracking loop. MediaPipe's FaceLandmarker is the reference and
needs no further package. They agree within hundredths of a pixel, not to the bit, so a store uses only one.
"""

import importlib.util
import zipfile
import zlib
from pathlib import Path

from concord import extras
from teachers.base import TeacherError
from teachers.face.reading import Backend

# Fastest first. For each: its module, its distribution, and the extra of concord-av that brings it.
BACKENDS = {
    "openvino": ("openvino", "openvino", "face"),
    "litert": ("ai_edge_litert", "ai-edge-litert", "litert"),
    "mediapipe": ("mediapipe", "mediapipe", "mediapipe"),
}


def installed() -> list[str]:
    """Names of the backends with an installed package, fastest first."""
    return [name for name, (module, _, _) in BACKENDS.items() if importlib.util.find_spec(module) is not None]


def load(name: str | None, model: Path) -> Backend:
    """The backend called `name` (None: the fastest installed one), on a face_landmarker.task.

    Raises TeacherError if the name is unknown, its package is missing (with the command that installs it), or the file
    is not such a task.
    """
    here = installed()
    if name is None and here:
        name = here[0]
    if name is None or name not in BACKENDS:
        raise TeacherError(
            f"unknown face backend '{name}' (known: {', '.join(BACKENDS)})"
            if name
            else f"none of {', '.join(BACKENDS)} is installed: {extras.install('face')}"
        )
    if name not in here:
        raise TeacherError(f"face backend '{name}' is not installed on this node: {extras.install(BACKENDS[name][2])}")
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
