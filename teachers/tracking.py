"""Faces followed from frame to frame: our own loop around the networks of MediaPipe's task file.

It gives what FaceLandmarker gives in video mode, faster. The landmark network sees a rotated square around the face; the
next frame's square follows from the points found in this one. The detector looks only while fewer faces than asked for
are followed. A face that is followed alone is smoothed by a One-Euro filter; the next square comes from the points before
smoothing.

The constants and the order of steps are those of MediaPipe's graphs (github.com/google-ai-edge/mediapipe, mediapipe/tasks/cc/
vision/face_landmarker and face_detector, Apache-2.0; facts, no code). Equal to the bit it is not: the networks differ by
1e-4 pixel, and the loop makes hundredths of a pixel of that within some frames, as it does between two processors.
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from teachers import face_detector
from teachers.face_backends import Reading
from teachers.face_networks import DETECTOR_SIDE, LANDMARK_SIDE, Networks

MIN_PRESENCE = 0.5  # of the landmark network's own verdict
SAME_FACE = 0.5  # intersection over union from which a detection takes the place of a followed square
DUPLICATE = 0.5  # and from which two detections are one; MediaPipe's detector alone uses the next one
DUPLICATE_COUNTED = 0.3
MARGIN = 1.5  # side of the square over that of the face
EYES = (33, 263)  # outer corners, left and right in the picture
# One-Euro filter (Casiez 2012, 10.1145/2207676.2208639), cutoffs in Hz. Velocities are in sizes of the face a second.
MIN_CUTOFF, BETA, VELOCITY_CUTOFF = 0.05, 80.0, 1.0
FIRST_RATE = 30.0  # frames a second that it supposes after a first frame at time 0
# The points that the blendshape network sees.
EXPRESSION = np.array(
    [
        *[0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78],
        *[80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150],
        *[152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197],
        *[234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308],
        *[310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377],
        *[378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466],
        *range(468, 478),
    ]
)


@dataclass(frozen=True)
class _Region:
    """A rotated rectangle in pixels of the frame, counted from its corner."""

    x: float  # centre
    y: float
    width: float
    height: float
    angle: float  # clockwise, radians

    def box(self, shape: tuple[int, ...]) -> np.ndarray:
        """f8 [4]: left, top, right, bottom in shares of the frame, as if it were upright."""
        x, y, width, height = self.x / shape[1], self.y / shape[0], self.width / shape[1], self.height / shape[0]
        return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])

    def back(self, points: np.ndarray) -> np.ndarray:
        """Points f4 [2, n] in pixels of the crop, as f4 in pixels of the frame.

        MediaPipe turns before it stretches, which is not what its crop does where width and height differ (in the first
        frame after a detection).
        """
        cosine, sine = math.cos(self.angle) / LANDMARK_SIDE, math.sin(self.angle) / LANDMARK_SIDE
        turn = np.array(
            [[cosine * self.width, -sine * self.width], [sine * self.height, cosine * self.height]], np.float32
        )
        centre = np.array([[self.x], [self.y]], np.float32)
        return turn @ (points - np.float32(LANDMARK_SIDE / 2)) + centre


def _around(low: np.ndarray, high: np.ndarray, eyes: np.ndarray, square: bool) -> _Region:
    """The region around the box from low to high (x, y), turned as the line from the left to the right eye [2, 2]."""
    (left, top), (right, bottom) = low.tolist(), high.tolist()
    width, height = right - left, bottom - top
    if square:
        width = height = max(width, height)
    (x0, y0), (x1, y1) = eyes.tolist()
    return _Region(
        (left + right) / 2, (top + bottom) / 2, MARGIN * width, MARGIN * height, math.atan2(y1 - y0, x1 - x0)
    )


class Sampler:
    """Cuts rotated rectangles out of frames as MediaPipe's OpenCV does: bilinear, positions rounded to 1/32 pixel."""

    def __init__(self, side: int) -> None:
        self._steps = np.arange(side) / side - 0.5
        self._x, self._y = (np.empty((side, side), np.float32) for _ in range(2))
        self._whole = np.empty((side, side, 2), np.int16)
        self._parts = np.empty((side, side), np.uint16)
        self._picture = np.empty((side, side, 3), np.uint8)

    def __call__(self, frame: np.ndarray, region: _Region, border: int) -> np.ndarray:
        """u1 [side, side, 3] of a frame u1 [height, width, 3]; border: OpenCV's name of what lies outside the frame.

        The next call overwrites it.
        """
        import cv2

        cosine, sine = math.cos(region.angle), math.sin(region.angle)
        across, down = self._steps * region.width, self._steps[:, None] * region.height
        np.add((across * cosine).astype(np.float32), (region.x - down * sine).astype(np.float32), out=self._x)
        np.add((across * sine).astype(np.float32), (region.y + down * cosine).astype(np.float32), out=self._y)
        cv2.convertMaps(self._x, self._y, cv2.CV_16SC2, self._whole, self._parts)
        return cv2.remap(frame, self._whole, self._parts, cv2.INTER_LINEAR, self._picture, border)


class Tracking:
    """The backend "openvino" or "litert": the loop, on networks that one of them runs."""

    def __init__(self, name: str, networks: Networks) -> None:
        self.name = name
        self.networks = networks
        self._whole, self._crop = Sampler(DETECTOR_SIDE), Sampler(LANDMARK_SIDE)

    def landmarker(self, num_faces: int) -> "Loop":
        """For one clip: a context manager whose read() is called for each frame in turn."""
        return Loop(self, num_faces)

    def count(self, frame: np.ndarray) -> int:
        """How many faces the detector sees in a frame u1 [height, width, 3]."""
        return len(self.detect(frame, DUPLICATE_COUNTED))

    def detect(self, frame: np.ndarray, duplicate: float) -> list[_Region]:
        """Regions of faces, surest first."""
        import cv2

        height, width = frame.shape[:2]
        side = float(max(height, width))
        boxes, logits = self.networks.detect(
            self._whole(frame, _Region(width / 2, height / 2, side, side, 0.0), cv2.BORDER_CONSTANT)
        )
        corner = np.array([width - side, height - side], np.float32) / 2
        regions = []
        for found in face_detector.decode(boxes, logits, duplicate):
            low, high, *eyes = (found * np.float32(side) + corner)[:4]
            regions.append(_around(low, high, np.stack(eyes), square=False))
        return regions

    def find(self, frame: np.ndarray, region: _Region) -> np.ndarray | None:
        """Points of the face in a region, f4 [2, 478] in pixels; None where the network sees none."""
        import cv2

        points, logit = self.networks.landmarks(self._crop(frame, region, cv2.BORDER_REPLICATE))
        return region.back(points) if 1 / (1 + math.exp(-logit)) > MIN_PRESENCE else None


class Loop:
    """One clip's faces, frame by frame. A context manager, for those backends that hold something open."""

    def __init__(self, tracking: Tracking, num_faces: int) -> None:
        self._tracking = tracking
        self._num_faces = num_faces
        self._regions: list[_Region] = []
        self._filter: _OneEuro | None = None

    def __enter__(self) -> "Loop":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read(self, frame: np.ndarray, timestamp_ms: int) -> list[Reading]:
        """The faces of the next frame."""
        regions = self._regions
        if len(regions) < self._num_faces:
            regions = self._with_detections(frame)
        found = [points for points in (self._tracking.find(frame, region) for region in regions) if points is not None]
        self._regions = [
            _around(points.min(axis=1), points.max(axis=1), points[:, EYES].T, square=True) for points in found
        ]
        if self._num_faces == 1:
            found = self._smoothed(found, timestamp_ms)
        size, networks = np.array(frame.shape[1::-1], np.float32), self._tracking.networks
        return [Reading(points.T / size, partial(networks.blendshapes, points[:, EXPRESSION].T)) for points in found]

    def _with_detections(self, frame: np.ndarray) -> list[_Region]:
        """The regions followed and those of detected faces, which take the place of followed ones that they overlap."""
        regions = list(self._regions)
        detected = self._tracking.detect(frame, DUPLICATE)[: self._num_faces]
        for new in detected:
            if not regions:
                regions.append(new)
                continue
            boxes = np.stack([region.box(frame.shape) for region in regions])
            same = face_detector.overlaps(new.box(frame.shape), boxes) > SAME_FACE
            regions = [region for region, replaced in zip(regions, same, strict=True) if not replaced] + [new]
        return regions[: self._num_faces]

    def _smoothed(self, found: list[np.ndarray], timestamp_ms: int) -> list[np.ndarray]:
        if not found:
            self._filter = None
            return []
        if self._filter is None:
            self._filter = _OneEuro(found[0], timestamp_ms)
            return found
        return [self._filter.add(found[0], timestamp_ms)]


class _OneEuro:
    """Smooths points f4 [2, n] the less the faster they move."""

    def __init__(self, points: np.ndarray, timestamp_ms: int) -> None:
        self.raw = self.smooth = points
        self.velocity = np.zeros_like(points)
        self.time = timestamp_ms

    def add(self, points: np.ndarray, timestamp_ms: int) -> np.ndarray:
        """The next points, smoothed, f4 [2, n]."""
        # MediaPipe takes a time of 0 for none, so that between the first frames its assumed rate stays.
        rate = 1000 / (timestamp_ms - self.time) if self.time else FIRST_RATE
        size = float((points.max(axis=1) - points.min(axis=1)).sum()) / 2
        keep = 1 / (1 + rate / (2 * math.pi * VELOCITY_CUTOFF))
        velocity = (points - self.raw) * np.float32(rate / max(size, 1e-6))
        self.velocity = self.velocity + np.float32(keep) * (velocity - self.velocity)
        cutoff = np.float32(MIN_CUTOFF) + np.float32(BETA) * np.abs(self.velocity)
        share = cutoff / (cutoff + np.float32(rate / (2 * math.pi)))
        self.smooth = self.smooth + share * (points - self.smooth)
        self.raw, self.time = points, timestamp_ms
        return self.smooth
