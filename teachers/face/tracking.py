"""Follows faces from frame to frame: this project's own loop around the networks of MediaPipe's task file.

It gives the results of FaceLandmarker in video mode, faster. The landmark network sees a rotated square around the
face; the next frame's square follows from the points found in this one. The detector runs only while fewer faces than
requested are followed. A face that is followed alone is smoothed by a One-Euro filter; the next square comes from the
points before smoothing.

The constants and the order of steps are those of MediaPipe's graphs (github.com/google-ai-edge/mediapipe,
mediapipe/tasks/cc/ vision/face_landmarker and face_detector, Apache-2.0; no code was copied). The results are not equal
to the bit: within ten frames such a loop, MediaPipe's own included, turns a difference of 1e-4 pixel into hundredths of
a pixel. So positions are not rounded to 1/32 pixel as in its OpenCV: that would cost a twentieth of the time, and after
ten frames it would make no difference.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from teachers.face import detector
from teachers.face.networks import DETECTOR_SIDE, LANDMARK_SIDE, Networks
from teachers.face.reading import MOST_SPOTS, SURE_PRESENCE, Reading

MIN_PRESENCE = 0.0  # logit, so probability 0.5: from the landmark network itself
SAME_FACE = 0.5  # intersection over union from which a detection replaces a followed square
DUPLICATE = 0.5  # and from which two detections are merged; the next one is used by MediaPipe's detector alone
DUPLICATE_COUNTED = 0.3
MARGIN = 1.5  # side of the square, relative to that of the face
EYES = (33, 263)  # outer corners, left and right in the picture
# One-Euro filter (Casiez 2012, 10.1145/2207676.2208639), cutoffs in Hz. Velocities are in sizes of the face a second.
MIN_CUTOFF, BETA, VELOCITY_CUTOFF = 0.05, 80.0, 1.0
FIRST_RATE = 30.0  # frames per second that it assumes after a first frame at time 0
# The input points of the blendshape network.
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
        """f8 [4]: left, top, right, bottom in fractions of the frame, as if the rectangle were upright."""
        x, y, width, height = self.x / shape[1], self.y / shape[0], self.width / shape[1], self.height / shape[0]
        return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])

    def back(self, points: np.ndarray) -> np.ndarray:
        """Points f4 [2, n] in pixels of the crop, as f4 in pixels of the frame.

        MediaPipe rotates before it scales. Its crop does not do so, which matters where width and height differ (in the
        first frame after a detection).
        """
        cosine, sine = math.cos(self.angle) / LANDMARK_SIDE, math.sin(self.angle) / LANDMARK_SIDE
        a, b, c, d = cosine * self.width, -sine * self.width, sine * self.height, cosine * self.height
        half = LANDMARK_SIDE / 2  # the middle of the crop is the region's centre
        corner = np.array([[self.x - (a + b) * half], [self.y - (c + d) * half]], np.float32)
        return np.array([[a, b], [c, d]], np.float32) @ points + corner


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


def _begun(spot: np.ndarray) -> _Region:
    """The region of a detected face: box and eyes f4 [4, 2]."""
    return _around(spot[0], spot[1], spot[2:], square=False)


def _whole(frame: np.ndarray, side: int) -> np.ndarray:
    """A frame u1 [height, width, 3], scaled and centred in a black square: u1 [side, side, 3]."""
    import cv2

    height, width = frame.shape[:2]
    step = max(height, width) / side
    place = np.array([[step, 0, width / 2 - step * side / 2], [0, step, height / 2 - step * side / 2]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(frame, place, (side, side), flags=flags, borderMode=cv2.BORDER_CONSTANT)


def _cut(frame: np.ndarray, region: _Region, side: int) -> np.ndarray:
    """The region of a frame u1 [height, width, 3], upright: rgba u1 [side, side, 4]. The frame's edge is repeated
    outside.

    OpenCV samples four channels in two fifths of the time that it needs for three.
    """
    import cv2

    height, width = frame.shape[:2]
    cosine, sine = math.cos(region.angle), math.sin(region.angle)
    a, b = cosine * region.width, -sine * region.height  # the movement of one step across and one down, in whole crops
    c, d = sine * region.width, cosine * region.height
    left, right = _span(region.x, (abs(a) + abs(b)) / 2, width)
    top, bottom = _span(region.y, (abs(c) + abs(d)) / 2, height)
    part = cv2.cvtColor(frame[top:bottom, left:right], cv2.COLOR_RGB2RGBA)
    x, y = region.x - left - (a + b) / 2, region.y - top - (c + d) / 2
    place = np.array([[a / side, b / side, x], [c / side, d / side, y]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(part, place, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _span(centre: float, reach: float, size: int) -> tuple[int, int]:
    """[start, stop) of the pixels of a line of `size` that are within reach of a centre; at least one."""
    start = min(max(math.floor(centre - reach) - 1, 0), size - 1)
    return start, max(min(math.ceil(centre + reach) + 2, size), start + 1)


class Tracking:
    """The backend "openvino" or "litert": the loop, on networks that one of them runs."""

    def __init__(self, name: str, networks: Networks) -> None:
        self.name = name
        self.networks = networks

    def landmarker(self, num_faces: int) -> "Loop":
        """A reader for one clip: a context manager; call read() for each frame in order."""
        return Loop(self, num_faces)

    def count(self, frame: np.ndarray) -> int:
        """How many faces the detector sees in a frame u1 [height, width, 3]."""
        return len(self.detect(frame, DUPLICATE_COUNTED))

    def detect(self, frame: np.ndarray, duplicate: float) -> list[_Region]:
        """Regions of faces, highest score first."""
        return [_begun(points) for points in self._spots(frame, duplicate)]

    def search(self, frame: np.ndarray) -> Iterator[list[np.ndarray]]:
        """Spots of small faces in a frame u1 [height, width, 3] (`detector.search`)."""
        return detector.search(frame, partial(self._spots, duplicate=DUPLICATE_COUNTED))

    def _spots(self, frame: np.ndarray, duplicate: float) -> list[np.ndarray]:
        """Box and eyes of each detected face, f4 [4, 2] in pixels."""
        height, width = frame.shape[:2]
        side = max(height, width)
        boxes, logits = self.networks.detect(_whole(frame, DETECTOR_SIDE))
        corner = np.array([width - side, height - side], np.float32) / 2
        return [(found * np.float32(side) + corner)[:4] for found in detector.decode(boxes, logits, duplicate)]

    def find(self, frame: np.ndarray, region: _Region, presence: float = MIN_PRESENCE) -> np.ndarray | None:
        """Points of the face in a region, f4 [2, 478] in pixels; None if the network sees no face (a logit of up to
        `presence`)."""
        points, logit = self.networks.landmarks(_cut(frame, region, LANDMARK_SIDE))
        return region.back(points) if logit > presence else None


class Loop:
    """One clip's faces, frame by frame. A context manager, because some backends hold resources."""

    def __init__(self, tracking: Tracking, num_faces: int) -> None:
        self._tracking = tracking
        self._num_faces = num_faces
        self._regions: list[_Region] = []
        self._filter: OneEuro | None = None

    def __enter__(self) -> "Loop":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def read(self, frame: np.ndarray, timestamp_ms: int) -> list[Reading]:
        """The faces of the next frame."""
        regions = self._regions
        if len(regions) < self._num_faces:
            regions = self._with_detections(frame)
        return self._follow(frame, timestamp_ms, regions)

    def start(self, frame: np.ndarray, timestamp_ms: int, spots: Sequence[np.ndarray]) -> list[Reading]:
        """The faces at these spots, f4 [4, 2] each, in the frame that was read last without finding one."""
        regions: list[_Region] = []
        for spot in spots[:MOST_SPOTS]:
            region = _begun(spot)
            if len(regions) < self._num_faces and self._tracking.find(frame, region, SURE_PRESENCE) is not None:
                regions.append(region)
        return self._follow(frame, timestamp_ms, regions)

    def _follow(self, frame: np.ndarray, timestamp_ms: int, regions: list[_Region]) -> list[Reading]:
        """The faces in these regions, whose next regions are kept."""
        found = [points for points in (self._tracking.find(frame, region) for region in regions) if points is not None]
        self._regions = [
            _around(points.min(axis=1), points.max(axis=1), points[:, EYES].T, square=True) for points in found
        ]
        if self._num_faces == 1:
            found = self._smoothed(found, timestamp_ms)
        size, networks = np.array(frame.shape[1::-1], np.float32), self._tracking.networks
        return [Reading(points.T / size, partial(networks.blendshapes, points[:, EXPRESSION].T)) for points in found]

    def _with_detections(self, frame: np.ndarray) -> list[_Region]:
        """The regions followed and those of detected faces; a detected face replaces a followed one that it
        overlaps."""
        regions = list(self._regions)
        detected = self._tracking.detect(frame, DUPLICATE)[: self._num_faces]
        for new in detected:
            if not regions:
                regions.append(new)
                continue
            boxes = np.stack([region.box(frame.shape) for region in regions])
            same = detector.overlaps(new.box(frame.shape), boxes) > SAME_FACE
            regions = [region for region, replaced in zip(regions, same, strict=True) if not replaced] + [new]
        return regions[: self._num_faces]

    def _smoothed(self, found: list[np.ndarray], timestamp_ms: int) -> list[np.ndarray]:
        if not found:
            self._filter = None
            return []
        if self._filter is None:
            self._filter = OneEuro(found[0], timestamp_ms)
            return found
        return [self._filter.add(found[0], timestamp_ms)]


class OneEuro:
    """Smooths points f4 [2, n] the less the faster they move."""

    def __init__(self, points: np.ndarray, timestamp_ms: int) -> None:
        self.raw = self.smooth = points
        self.velocity = np.zeros_like(points)
        self.time = timestamp_ms

    def add(self, points: np.ndarray, timestamp_ms: int, size: float | None = None) -> np.ndarray:
        """The next points, smoothed, f4 [2, n]; `size` is that of the face, if these are not all of its points."""
        # MediaPipe treats a time of 0 as missing, so between the first two frames its assumed rate applies.
        rate = 1000 / (timestamp_ms - self.time) if self.time else FIRST_RATE
        if size is None:
            size = float((points.max(axis=1) - points.min(axis=1)).sum()) / 2
        keep = 1 / (1 + rate / (2 * math.pi * VELOCITY_CUTOFF))
        velocity = (points - self.raw) * np.float32(rate / max(size, 1e-6))
        self.velocity = self.velocity + np.float32(keep) * (velocity - self.velocity)
        cutoff = np.float32(MIN_CUTOFF) + np.float32(BETA) * np.abs(self.velocity)
        share = cutoff / (cutoff + np.float32(rate / (2 * math.pi)))
        self.smooth = self.smooth + share * (points - self.smooth)
        self.raw, self.time = points, timestamp_ms
        return self.smooth
