"""The ways of faces through a clip, in memory that is 750 bytes per face and frame.

A face continues the track whose last box it overlaps most, unless it comes after a gap and looks like somebody else.
After the pass, tracks that do not overlap in time become one if they look like the same person (a face that leaves and
returns, a cut away and back). A look is the grey face, turned upright and 26 pixels wide; two are compared by their
correlation. Tried on 93 clips of some 60 people: at SAME_LOOK, 90 % of faces are recognised at the other end of their
clip, and 1 % of pairs of other people are taken for one. Where several tracks qualify, none is joined.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from teachers.face import align, whole_face
from teachers.face.reading import Reading
from teachers.face.tracking import OneEuro

MIN_OVERLAP = 0.2  # intersection over union with the track's last box; at 25 fps a face moves far less
NUM_BLENDSHAPES = 52  # in MediaPipe's order, the first is "_neutral"
MS_PER_FRAME = 40
PENDING = 250  # frames whose blendshapes are computed together, so that the network stays in the cache
ROWS = 2048  # frames whose points are aligned at once
LOOK_EVERY = 12  # frames between two looks at a face
SAME_LOOK = 0.7  # correlation of two looks from which two tracks are of one person
# And below which a face at the same place is another person's: 2 % of the same person's, 65 % of others'.
OTHER_LOOK = 0.4
SAME_SIZE = 3.0  # ratio of the faces' sizes, as shares of their pictures, up to which they may be of one track

# Indices into MediaPipe's 478 points. "Left" is the picture's left.
# At dlib's points 33, 36, 39, 42, 45: base of the nose, left eye outer and inner corner, right eye inner and outer.
STABLE = np.array([2, 33, 133, 362, 263])
# At dlib's points 48 to 67: the outer lip from the left corner over the top, then the inner lip.
MOUTH = np.array([61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91, 78, 81, 13, 311, 308, 402, 14, 178])
# Outer lip, then inner lip: from the left corner over the top to the right corner and back below. The order of `lips`.
LIPS = np.array(
    [
        *[61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146],
        *[78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95],
    ]
)
POINTS = np.concatenate([STABLE, MOUTH, LIPS])  # the points of a face that are kept
OF_STABLE, OF_MOUTH, OF_LIPS = slice(0, 5), slice(5, 25), slice(25, 65)

Box = tuple[float, float, float, float]  # left, top, right, bottom, pixels


@dataclass
class Face:
    """One face in one frame."""

    box: Box
    points: np.ndarray  # f4 [65, 2], pixels
    blendshapes: Callable[[], np.ndarray]  # f4 [52]

    @classmethod
    def of(cls, found: Reading, shape: tuple[int, int]) -> Face:
        """A face in pixels from one in fractions of the picture, whose height and width are `shape`."""
        # MediaPipe counts from the picture's corner; here pixel centres are whole numbers.
        pixels = found.points * np.array([shape[1], shape[0]], np.float32) - np.float32(0.5)
        (left, top), (right, bottom) = pixels.min(axis=0).tolist(), pixels.max(axis=0).tolist()
        return cls((left, top, right, bottom), pixels[POINTS], found.blendshapes)

    @property
    def eyes_and_mouth(self) -> np.ndarray:
        """f4 [3, 2]: outer corners of the eyes, and the middle of the mouth."""
        corners = self.points[OF_MOUTH][[0, 6]]
        return np.stack([self.points[1], self.points[4], corners.mean(axis=0)])

    @property
    def mouth_region(self) -> tuple[float, float, float]:
        """Centre (x, y) and reach, in pixels, of the part of a picture that a mouth crop may need."""
        across, down = self.points[OF_MOUTH].mean(axis=0).tolist()
        # The crop is 1.3 times as wide as the distance of the eyes; half as much again leaves room for motion and tilt.
        return across, down, 1.3 * math.dist(self.points[4], self.points[1])


class Track:
    """One face through the frames in which it was found."""

    def __init__(self) -> None:
        self.frames = array("i")  # ascending
        self.parts = array("i")  # first frames of the tracks that were joined, in order
        self.area = 0.0  # pixels, summed over frames
        self.last: Box = (0.0, 0.0, 0.0, 0.0)
        self.shares: list[float] = []  # of the picture's area, where it was seen first and last
        self.looks: list[np.ndarray] = []  # the first and the last one
        self._looked = 0  # frame of the last one
        self._raw: Face | None = None  # the last one, and the same smoothed
        self._filter: OneEuro | None = None
        self._boxes, self._points, self._scores = bytearray(), bytearray(), bytearray()
        self._pending: list[Callable[[], np.ndarray]] = []

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def boxes(self) -> np.ndarray:
        """f4 [found, 4]: left, top, right, bottom, pixels."""
        return np.frombuffer(self._boxes, np.float32).reshape(-1, 4)

    @property
    def points(self) -> np.ndarray:
        """f4 [found, 65, 2], pixels."""
        return np.frombuffer(self._points, np.float32).reshape(-1, len(POINTS), 2)

    @property
    def blendshapes(self) -> np.ndarray:
        """f4 [found, 52]."""
        self._settle()
        return np.frombuffer(self._scores, np.float32).reshape(-1, NUM_BLENDSHAPES)

    def rows(self, values: np.ndarray, gaps: align.Gaps, start: int, stop: int) -> np.ndarray:
        """The track's values [found, ...] for the frames from start to stop, f8: gaps are filled, other frames without
        the face are 0."""
        low, high = max(start - align.MAX_GAP, 0), stop + align.MAX_GAP
        frames = np.asarray(self.frames)
        first, last = np.searchsorted(frames, [low, high])
        dense = np.zeros((high - low, *values.shape[1:]))
        dense[frames[first:last] - low] = values[first:last]
        gaps.within(start, stop, low).fill(dense)
        return dense[start - low : stop - low]

    def add(self, frame: int, face: Face, image: np.ndarray, steadied: bool = False) -> None:
        """The face in the next frame in which it is found; `image` is that frame. Landmarkers smooth a face that they follow
        alone; `steadied` does the same for one of several."""
        if steadied:
            if face is not self._raw:
                self._raw, self._steady = (
                    face,
                    replace(face, points=self._smoothed(frame, face)),
                )  # a repeated one stays
            face = self._steady
        if not self.frames:
            self.parts.append(frame)
        if not self.looks or frame - self._looked >= LOOK_EVERY:
            self._looked = frame
            self.looks[1:] = [whole_face.look(image, face.eyes_and_mouth)]
        self.frames.append(frame)
        self.last = face.box
        self.shares[1:] = [_area(face.box) / (image.shape[0] * image.shape[1])]
        self.area += _area(face.box)
        self._boxes += np.array(face.box, np.float32).tobytes()
        self._points += face.points.tobytes()
        self._pending.append(face.blendshapes)
        if len(self._pending) >= PENDING:
            self._settle()

    def _smoothed(self, frame: int, face: Face) -> np.ndarray:
        """The points of a face, smoothed if it was found in the frame before."""
        if self._filter is None or frame != self.frames[-1] + 1:
            self._filter = OneEuro(face.points.T, frame * MS_PER_FRAME)
            return face.points
        left, top, right, bottom = face.box
        return self._filter.add(face.points.T, frame * MS_PER_FRAME, (right - left + bottom - top) / 2).T

    def join(self, other: Track) -> None:
        """Go on with a later track."""
        self._settle()
        other._settle()
        self.frames += other.frames
        self.parts += other.parts
        self.area += other.area
        self.last = other.last
        self.shares, self.looks = [self.shares[0], other.shares[-1]], [self.looks[0], other.looks[-1]]
        self._boxes += other._boxes
        self._points += other._points
        self._scores += other._scores

    def _settle(self) -> None:
        """Compute the blendshapes of the frames since the last time; a picture that stays is computed once."""
        read, values = None, b""
        for pending in self._pending:
            if pending is not read:
                read, values = pending, np.asarray(pending(), np.float32).tobytes()
            self._scores += values
        self._pending.clear()


@dataclass(frozen=True)
class Seen:
    """Where a face is and how its lips move from frame `start` on, before anything is cropped."""

    track: Track
    start: int
    detected: np.ndarray  # bool [frames]
    interpolated: np.ndarray  # bool [frames]
    lips: np.ndarray  # f4 [frames, 40, 2], pixels of the mean face; 0 without a face
    source: np.ndarray  # f8 [frames, 2, 3], from pixels of a mouth crop to those of its frame; 0 without a face
    gaps: align.Gaps  # counted from the clip's first frame
    # [start, stop) with a face, each unbroken and in one part of the track, counted from `start`
    runs: list[tuple[int, int]]

    @cached_property
    def height(self) -> float:
        """Of the face in the picture, pixels: the median over its frames."""
        return float(np.median(self.track.boxes[:, 3] - self.track.boxes[:, 1]))


def see(track: Track, sizes: Sequence[int], start: int, stop: int) -> Seen:
    """A face in the frames from start to stop; `sizes` are the frames from which pictures have another size. Where the
    frames before start and after stop are left out, up to 24 frames at the ends may differ from those of a whole clip."""
    n, changes = stop - start, [first - start for first in sizes if first > start]
    number = _numbers([*track.parts[1:], *sizes], start, stop)
    detected, interpolated = np.zeros(n, bool), np.zeros(n, bool)
    frames = np.asarray(track.frames)
    detected[frames[slice(*np.searchsorted(frames, [start, stop]))] - start] = True
    gaps = align.Gaps.of(detected, number)
    interpolated[gaps.rows] = True
    gaps = gaps.within(0, n, -start)
    runs = align.runs(detected | interpolated, _numbers(track.parts[1:], start, stop))
    lips, source = np.zeros((n, len(LIPS), 2), np.float32), np.zeros((n, 2, 3))
    stable = track.rows(track.points[:, OF_STABLE], gaps, start, stop)
    for first, last in runs:
        transform = align.transforms(stable[first:last], [c - first for c in changes if first < c < last])
        for a in range(first, last, ROWS):
            b = min(a + ROWS, last)
            here = transform[a - first : b - first]
            aligned = align.apply(here, track.rows(track.points, gaps, start + a, start + b))
            lips[a:b] = aligned[:, OF_LIPS] - align.MEAN_MOUTH
            source[a:b] = align.to_source(here, align.corners(aligned[:, OF_MOUTH]))
    return Seen(track, start, detected, interpolated, lips, source, gaps, runs)


def _numbers(starts: Sequence[int], start: int, stop: int) -> np.ndarray:
    """Numbers of the parts, which begin at `starts`, in which the frames from start to stop lie, i4 [stop - start]."""
    return np.searchsorted(np.array(sorted(starts)), np.arange(start, stop), side="right").astype(np.int32)


def follow(tracks: list[Track], frame: int, faces: Sequence[Face], image: np.ndarray, steadied: bool) -> None:
    """Give each face to the track whose last box it overlaps most, else a new one; at most one face a track."""
    pairs = []
    for f, face in enumerate(faces):
        for t, track in enumerate(tracks):
            share = _overlap(track.last, face.box)
            if share >= MIN_OVERLAP and not _is_other(track, frame, face, image):
                pairs.append((-share, t, f))
    used_tracks: set[int] = set()
    used_faces: set[int] = set()
    for _, t, f in sorted(pairs):
        if t not in used_tracks and f not in used_faces:
            tracks[t].add(frame, faces[f], image, steadied)
            used_tracks.add(t)
            used_faces.add(f)
    for f, face in enumerate(faces):
        if f not in used_faces:
            tracks.append(Track())
            tracks[-1].add(frame, face, image, steadied)


def _is_other(track: Track, frame: int, face: Face, image: np.ndarray) -> bool:
    """Whether a face that appears at the track's place after a gap is another person's."""
    if frame - track.frames[-1] <= align.MAX_GAP + 1:
        return False
    return float((track.looks[-1] * whole_face.look(image, face.eyes_and_mouth)).sum()) < OTHER_LOOK


def resized(tracks: Sequence[Track], before: tuple[int, int], after: tuple[int, int]) -> None:
    """The pictures change from one height and width to another: where the faces were seen last, as fractions, is where
    they are looked for."""
    down, across = after[0] / before[0], after[1] / before[1]
    for track in tracks:
        left, top, right, bottom = track.last
        track.last = left * across, top * down, right * across, bottom * down


def joined(tracks: Sequence[Track]) -> list[Track]:
    """The tracks, with those in one that are of the same person and do not overlap in time."""
    found: list[Track] = []
    for track in sorted(tracks, key=lambda one: one.frames[0]):
        before = [other for other in found if other.frames[-1] < track.frames[0] and _is_same(other, track)]
        if len(before) == 1 and not any(_is_same(before[0], other) for other in _beside(tracks, track, before[0])):
            before[0].join(track)
        else:
            found.append(track)
    return found


def _beside(tracks: Sequence[Track], track: Track, before: Track) -> list[Track]:
    """The tracks other than `track` that are seen together with it and begin after the end of `before`."""
    first, last = max(track.frames[0], before.frames[-1] + 1), track.frames[-1]
    return [
        other
        for other in tracks
        if other is not track and before.frames[-1] < other.frames[0] <= last and other.frames[-1] >= first
    ]


def _is_same(before: Track, after: Track) -> bool:
    """Whether two tracks look like one person, where the first ends and the second begins."""
    smaller, larger = sorted((before.shares[-1], after.shares[0]))
    return larger <= SAME_SIZE**2 * smaller and float((before.looks[-1] * after.looks[0]).sum()) >= SAME_LOOK


def _area(box: Box | np.ndarray) -> float:
    left, top, right, bottom = box
    return max(right - left, 0) * max(bottom - top, 0)


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inner = max(across, 0.0) * max(down, 0.0)
    return inner / max(_area(a) + _area(b) - inner, 1e-9)
