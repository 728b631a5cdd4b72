"""The backend "mediapipe": FaceLandmarker in video mode, and the detector that counts faces, called directly.

It is the reference for the other backends and works where they are not installed. The public interface of the wheel
makes an object for each of 478 points (0.7 of 8 ms per frame) and lets the C++ side write four lines per clip to
standard error; both are avoided here. This uses private names of mediapipe 1.2, which the project pins; a test compares
the results with those of the public interface.
"""

import ctypes
import math
import weakref
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from teachers.face import detector
from teachers.face.reading import MOST_SPOTS, SURE_PRESENCE, Reading
from teachers.quiet import quiet

ROOM = 4.0  # side of the window around a small face, in faces


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

    def search(self, frame: np.ndarray) -> Iterator[list[np.ndarray]]:
        """Spots of small faces in a frame u1 [height, width, 3] (`detector.search`)."""
        return detector.search(frame, self._spots)

    def _spots(self, frame: np.ndarray) -> list[np.ndarray]:
        """Box and eyes of each detected face, f4 [4, 2] in pixels."""
        size, found = _size(frame), []
        for one in self._task.detect(image(frame)).detections:
            box = one.bounding_box
            low = _pair(box.origin_x, box.origin_y)
            eyes = [_pair(point.x, point.y) * size for point in one.keypoints[:2]]
            found.append(np.stack([low, low + _pair(box.width, box.height), *eyes]))
        return found


def _close(task: Any) -> None:
    """Closes the detector. MediaPipe cannot do so while Python shuts down, and its own attempt would print a
    traceback."""
    with quiet():
        try:
            task.close()
        except RuntimeError:
            task._handle = None


class Landmarker:
    """The landmarker in video mode for one clip: 478 points and 52 blendshapes per face. A context manager.

    Its detector sees the whole picture only. A small face is given to a landmarker of its own in a window around it,
    which is made anew where the face comes near the window's border.
    """

    def __init__(self, model: Path, num_faces: int) -> None:
        self._model, self._num_faces = model, num_faces
        self._task = _task(model, num_faces)
        self._windows: list[_Window] = []

    def __enter__(self) -> "Landmarker":
        return self

    def __exit__(self, *error: object) -> None:
        self._task.close()
        for window in self._windows:
            window.task.close()

    def read(self, frame: np.ndarray, timestamp_ms: int) -> list[Reading]:
        """The faces of the next frame, which must be contiguous."""
        if not self._windows:
            return _read(self._task, frame, timestamp_ms)
        found, windows = [], []
        for window in self._windows:
            reading = window.read(frame, timestamp_ms)
            if reading is not None and window.is_near_border(reading, frame):
                window.task.close()
                window = _Window.around(self._model, reading.points * _size(frame), frame)
                reading = window.read(frame, timestamp_ms) or reading
            if reading is None:
                window.task.close()
            else:
                found.append(reading)
                windows.append(window)
        self._windows = windows
        return found

    def start(self, frame: np.ndarray, timestamp_ms: int, spots: Sequence[np.ndarray]) -> list[Reading]:
        """The faces at these spots, f4 [4, 2] each, in the frame that was read last without finding one."""
        found: list[Reading] = []
        for spot in spots[:MOST_SPOTS]:
            if len(found) < self._num_faces and (begun := _Window.sure(self._model, spot[:2], frame, timestamp_ms)):
                self._windows.append(begun[0])
                found.append(begun[1])
        return found


def _task(model: Path, num_faces: int, presence: float = 0.5) -> Any:
    """MediaPipe's FaceLandmarker in video mode, for faces of at least this probability."""
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(model)),
        running_mode=vision.RunningMode.VIDEO,
        num_faces=num_faces,
        min_face_presence_confidence=presence,
        output_face_blendshapes=True,
    )
    with quiet():
        return vision.FaceLandmarker.create_from_options(options)


@dataclass(frozen=True)
class _Window:
    """A landmarker that sees a square part of the picture: its left, top, right and bottom, pixels."""

    task: Any
    box: tuple[int, int, int, int]

    @classmethod
    def around(cls, model: Path, points: np.ndarray, frame: np.ndarray) -> "_Window":
        """A window around the points [n, 2] of a face in pixels, ROOM times as large."""
        reach = ROOM * float(np.ptp(points, axis=0).max()) / 2
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        low, high = middle - reach, middle + reach
        left, top = (max(int(x), 0) for x in low)
        right, bottom = (min(int(x) + 1, size) for x, size in zip(high, frame.shape[1::-1], strict=True))
        return cls(_task(model, 1), (left, top, right, bottom))

    @classmethod
    def sure(
        cls, model: Path, points: np.ndarray, frame: np.ndarray, timestamp_ms: int
    ) -> tuple["_Window", Reading] | None:
        """A window around a face that the landmark network is sure of, and the face; None if there is none."""
        window = cls.around(model, points, frame)
        strict = cls(_task(model, 1, 1 / (1 + math.exp(-SURE_PRESENCE))), window.box)
        seen = window.read(frame, timestamp_ms) if strict.read(frame, timestamp_ms) else None
        strict.task.close()
        if seen is None:
            window.task.close()
            return None
        return window, seen

    def read(self, frame: np.ndarray, timestamp_ms: int) -> Reading | None:
        """The face in the window, with points in fractions of the frame."""
        left, top, right, bottom = self.box
        part = np.ascontiguousarray(frame[top:bottom, left:right])
        for face in _read(self.task, part, timestamp_ms):
            points = face.points * _size(part) + _pair(left, top)
            return Reading(points / _size(frame), face.blendshapes)
        return None

    def is_near_border(self, face: Reading, frame: np.ndarray) -> bool:
        """Whether a face has come near a border of the window that is not the frame's, or grown as large as half of it."""
        points = face.points * _size(frame)
        low, high = points.min(axis=0), points.max(axis=0)
        room = (high - low).max() / 2
        left, top, right, bottom = self.box
        height, width = frame.shape[:2]
        inside = [(left > 0, low[0] - left), (top > 0, low[1] - top)]
        inside += [(right < width, right - high[0]), (bottom < height, bottom - high[1])]
        return any(inner and distance < room for inner, distance in inside)


def _pair(x: float, y: float) -> np.ndarray:
    return np.array([x, y], np.float32)


def _size(frame: np.ndarray) -> np.ndarray:
    """Width and height, f4 [2]."""
    return _pair(frame.shape[1], frame.shape[0])


def _read(task: Any, frame: np.ndarray, timestamp_ms: int) -> list[Reading]:
    """What FaceLandmarker.detect_for_video does, but reads each C array at once."""
    from mediapipe.tasks.python.vision import face_landmarker

    result = face_landmarker.MpFaceLandmarkerResultC()
    picture = image(frame)
    task._lib.MpFaceLandmarkerDetectForVideo(task._handle, picture._image_ptr, None, timestamp_ms, ctypes.byref(result))
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
