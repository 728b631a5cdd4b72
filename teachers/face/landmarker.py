"""The backend "mediapipe": FaceLandmarker in video mode, and the detector that counts faces, called directly.

It is the reference for the other backends and works where they are not installed. The public interface of the wheel
makes an object for each of 478 points (0.7 of 8 ms per frame) and lets the C++ side write four lines per clip to
standard error; both are avoided here. This uses private names of mediapipe 1.2, which the project pins; a test compares
the results with those of the public interface.
"""

import ctypes
import weakref
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from teachers.face.reading import Reading
from teachers.quiet import quiet


def image(frame: np.ndarray) -> Any:
    """MediaPipe's image of a contiguous rgb24 frame u1 [height, width, 3]."""
    import mediapipe as mp

    return mp.Image(image_format=mp.ImageFormat.SRGB, data=frame)


class MediaPipe:
    """The backend: a landmarker for each clip, and the short-range face detector inside the task file, in image mode."""

    name = "mediapipe"

    def __init__(self, model: Path) -> None:
        from mediapipe.tasks.python import BaseOptions, vision

        self._model = model
        with zipfile.ZipFile(model) as task:
            content = task.read("face_detector.tflite")
        options = vision.FaceDetectorOptions(base_options=BaseOptions(model_asset_buffer=content))
        with quiet():
            self._task = vision.FaceDetector.create_from_options(options)
            self.count(np.zeros((128, 128, 3), np.uint8))  # its messages come with the first picture
        weakref.finalize(self, _close, self._task)

    def landmarker(self, num_faces: int) -> "Landmarker":
        """A reader for one clip: a context manager; call read() for each frame in order."""
        return Landmarker(self._model, num_faces)

    def count(self, frame: np.ndarray) -> int:
        """How many faces the detector sees in a contiguous frame u1 [height, width, 3]."""
        return len(self._task.detect(image(frame)).detections)


def _close(task: Any) -> None:
    """Closes the detector. MediaPipe cannot do so while Python shuts down, and its own attempt would print a
    traceback."""
    with quiet():
        try:
            task.close()
        except RuntimeError:
            task._handle = None


class Landmarker:
    """The landmarker in video mode for one clip: 478 points and 52 blendshapes per face. A context manager."""

    def __init__(self, model: Path, num_faces: int) -> None:
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(model)),
            running_mode=vision.RunningMode.VIDEO,
            num_faces=num_faces,
            output_face_blendshapes=True,
        )
        with quiet():
            self._task = vision.FaceLandmarker.create_from_options(options)

    def __enter__(self) -> "Landmarker":
        return self

    def __exit__(self, *error: object) -> None:
        self._task.close()

    def read(self, frame: np.ndarray, timestamp_ms: int) -> list[Reading]:
        """The faces of the next frame, which must be contiguous.

        Does what FaceLandmarker.detect_for_video does, but reads each C array at once.
        """
        from mediapipe.tasks.python.vision import face_landmarker

        result = face_landmarker.MpFaceLandmarkerResultC()
        task, picture = self._task, image(frame)
        task._lib.MpFaceLandmarkerDetectForVideo(
            task._handle, picture._image_ptr, None, timestamp_ms, ctypes.byref(result)
        )
        faces = []
        try:
            for i in range(result.face_landmarks_count):
                landmarks, scores = result.face_landmarks[i], result.face_blendshapes[i]
                x, y = (_column(landmarks.landmarks, landmarks.landmarks_count, name) for name in "xy")
                blendshapes = _column(scores.categories, scores.categories_count, "score").copy()
                faces.append(Reading(np.stack([x, y], axis=1), partial(np.copy, blendshapes)))
        finally:
            task._lib.MpFaceLandmarkerCloseResult(ctypes.byref(result))
        return faces


def _column(pointer: Any, count: int, name: str) -> np.ndarray:
    """One float field of a C array of structures, f4 [count], without copying."""
    kind = pointer._type_
    array = ctypes.cast(pointer, ctypes.POINTER(kind * count)).contents
    return np.ndarray((count,), np.float32, array, getattr(kind, name).offset, (ctypes.sizeof(kind),))
