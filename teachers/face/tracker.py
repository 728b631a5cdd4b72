"""The faces of a clip, each followed through it: aligned mouth crops, lip landmarks, blendshapes and, if requested, whole
faces.

A backend runs MediaPipe's networks (see backends). Each clip gets a new landmarker, with time stamps 40 ms apart, so
that a clip gives the same bytes each time. It follows one face, which is fast, unless a detector that looks at one
frame per second sees several: then as many are followed, up to MAX_FACES. Where no face is found, small ones are
searched for in some frames (`detector.search`). Faces become tracks by overlap and by what they look like (tracks). The
most prominent one comes first (area summed over frames); `pipelines.workers.watch` chooses the speaker. Gaps of up to
12 frames are interpolated and marked; longer ones stay empty.

Frames are streamed, and each may have another size: points are pixels of their own frame, and nothing is averaged or
interpolated across a change of size. Only the surroundings of the mouth (of the face, if whole faces are requested) are
kept, up to KEEP_BYTES; crops that need more are made in a second pass over the frames (patches). A repeated picture is
read READ times; after that its faces are reused, so the work depends on the number of pictures, not of frames.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from concord.arrays import large
from concord.errors import ConcordError
from teachers.face import align, backends, patches, tracks, whole_face
from teachers.face.detector import Schedule
from teachers.face.patches import Crops, Early, Patches, Shape
from teachers.face.reading import Backend, Landmarker
from teachers.face.tracks import LIPS as LIPS
from teachers.face.tracks import MOUTH as MOUTH
from teachers.face.tracks import MS_PER_FRAME, NUM_BLENDSHAPES, Face, Seen, Track
from teachers.face.tracks import STABLE as STABLE
from teachers.files import face_model, weights
from teachers.files.face_model import MODEL as MODEL
from teachers.files.face_model import MODEL_SHA256 as MODEL_SHA256

PROBE_EVERY = 25  # frames between searches for further faces
MAX_FACES = 4  # followed at once, if there are several
MIN_FRAMES = 10  # with a detected face; with fewer, the clip has no face
READ = 5  # times that one picture is read: a video of 5 pictures per second is read at every frame
KEEP_BYTES = 256 << 20  # of pictures around mouths, kept between the passes; the same again around faces
EARLY_BYTES, EARLY_FRAMES = 48 << 20, 100  # from so many on, crops are made during the pass, for so many frames or more


class NoFaceError(ConcordError):
    """No face in the clip, or in too few of its frames. `reason` is the ledger's."""

    reason = "no_face"


@dataclass(frozen=True)
class FaceTrack:
    """One face through a clip. Frames neither detected nor interpolated are all 0."""

    mouth: np.ndarray  # u1 [frames, 96, 96], grey
    lips: np.ndarray  # f4 [frames, 40, 2], pixels of the 256 x 256 mean face, origin at its mouth centre, y down
    blendshapes: np.ndarray  # f4 [frames, 52], 0 to 1
    detected: np.ndarray  # bool [frames]
    interpolated: np.ndarray  # bool [frames]
    num_faces: int  # largest number at once of faces that are seen in MIN_FRAMES frames
    face: np.ndarray | None = None  # u1 [frames, 112, 112], grey (see whole_face); None if not requested
    height: float = 0.0  # of the face in the picture, pixels: the median over its frames


class FaceTracker:
    """Follows the faces of a clip; one instance reads many clips, one after the other."""

    def __init__(self, model: Path | None = None, backend: str | None = None) -> None:
        """model: a face_landmarker.task; without it, the one that face_model.find gives.

        backend: a name in backends.BACKENDS; without it, the fastest that is installed. Raises WeightsError, and
        TeacherError if the backend cannot be loaded.
        """
        if model is None:
            self._weights = face_model.find()
        else:
            self._weights = weights.resolve(MODEL, path=model)
        self._backend = backends.load(backend, self._weights.path)

    def track(self, frames: Iterable[np.ndarray], whole_faces: bool = False) -> FaceTrack:
        """The most prominent face of rgb24 frames u1 [height, width, 3] at 25 fps; `whole_faces`: with `FaceTrack.face`.

        `frames` must be re-iterable: it is read a second time if there are several faces or the regions to crop exceed
        KEEP_BYTES. A repeated picture may be the same array; a new picture must be a new array. Raises NoFaceError if
        fewer than MIN_FRAMES frames show a face.
        """
        faces = self.follow(frames, whole_faces)
        return faces.cropped([faces.seen(0)])[0]

    def follow(self, frames: Iterable[np.ndarray], whole_faces: bool = False) -> "Faces":
        """All faces that are seen in at least MIN_FRAMES of the frames; arguments and errors as for `track`."""
        num_faces = 1
        while True:
            found = Faces(frames, whole_faces)
            try:
                _Pass(self._backend, found, num_faces).run()
            except _SeveralFaces as error:
                num_faces = error.seen
                continue
            found.settle()
            return found

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


class Faces:
    """All faces of a clip, the most prominent one first, and what is needed to crop them from its frames."""

    def __init__(self, frames: Iterable[np.ndarray], whole_faces: bool) -> None:
        self.frames, self.whole_faces = frames, whole_faces
        self.tracks: list[Track] = []
        self.num_faces = 0  # largest number at once, once settled
        self.kept = {"mouth": Patches(KEEP_BYTES, lambda face: face.mouth_region)}
        if whole_faces:
            self.kept["face"] = Patches(KEEP_BYTES, lambda face: whole_face.region(face.box), grey=True)
        self.early: dict[str, list[Early]] = {name: [] for name in self.kept}
        self.ahead = 0  # frames that may have been cropped already
        self.shelf = large.Shelf()
        self.shapes: list[Shape] = []
        self.stays = bytearray()  # by frame: 1 where a picture is repeated

    @property
    def num_frames(self) -> int:
        return len(self.stays)

    def settle(self) -> None:
        """Join the tracks once all frames were read. Raises NoFaceError."""
        found = sorted(tracks.joined(self.tracks), key=lambda track: -track.area)
        self.tracks = [track for track in found if len(track) >= MIN_FRAMES]
        if not self.tracks or self.tracks[0] is not found[0]:
            seen = len(found[0]) if found else 0
            raise NoFaceError(
                f"a face was found in {seen} of {self.num_frames} frames; at least {MIN_FRAMES} are needed"
            )
        together = np.zeros(self.num_frames, np.int16)
        for track in self.tracks:
            together[np.asarray(track.frames)] += 1
        self.num_faces = int(together.max())

    def seen(self, i: int) -> Seen:
        """Face i and the motion of its lips."""
        return tracks.see(self.tracks[i], [first for first, _ in self.shapes], 0, self.num_frames)

    def cropped(self, wanted: Sequence[Seen]) -> list[FaceTrack]:
        """These faces with their crops. The frames are read again only if that is necessary, or for a second call: what was
        kept of them is dropped."""
        crops: list[Crops] = []
        found = []
        for seen in wanted:
            n = len(seen.detected)
            own = self._crops(seen, n)
            scores = np.zeros((n, NUM_BLENDSHAPES), np.float32)
            for a in range(0, n, tracks.ROWS):
                b = min(a + tracks.ROWS, n)
                scores[a:b] = seen.track.rows(seen.track.blendshapes, seen.gaps, a, b)
            whole = own["face"].out if self.whole_faces else None
            about = seen.detected, seen.interpolated, self.num_faces, whole, seen.height
            found.append(FaceTrack(own["mouth"].out, seen.lips, scores, *about))
            crops += own.values()
        patches.make(self.frames, crops, self.shapes, np.frombuffer(self.stays, bool))
        for pieces in self.kept.values():
            pieces.drop(self.num_frames)
        return found

    def _crops(self, seen: Seen, rows: int) -> dict[str, Crops]:
        """The crops to make of a face, into new arrays of so many rows."""
        faced = seen.detected | seen.interpolated
        mouth = large.zeros((rows, align.CROP, align.CROP), np.uint8)
        place = seen.source, align.extent(seen.source)
        found = {"mouth": Crops(self.kept["mouth"], faced, mouth, *place, align.crop, self.early["mouth"])}
        if self.whole_faces:
            whole = large.zeros((rows, whole_face.SIDE, whole_face.SIDE), np.uint8)
            squares = np.zeros((len(faced), 3))
            boxes = seen.track.rows(seen.track.boxes, seen.gaps, seen.start, seen.start + len(faced))
            for start, stop in seen.runs:
                squares[start:stop] = whole_face.squares(boxes[start:stop])
            place = squares, whole_face.extent(squares)
            found["face"] = Crops(self.kept["face"], faced, whole, *place, whole_face.crop, self.early["face"])
        return found

    def crop_early(self) -> None:
        """Make the crops of frames whose followers are known, where one face is followed and pieces need EARLY_BYTES."""
        stop = self.num_frames - 2 * align.MAX_GAP
        if stop - self.ahead < EARLY_FRAMES or max(one.used for one in self.kept.values()) < EARLY_BYTES:
            return
        if len(self.tracks) == 1:
            origin = max(self.ahead - 2 * align.MAX_GAP, 0)
            starts = [first for first, _ in self.shapes]
            seen = tracks.see(self.tracks[0], starts, origin, self.num_frames)
            for name, crops in self._crops(seen, 0).items():
                self.early[name].append(crops.ahead(origin, self.ahead, stop, self.shapes, self.shelf))
                self.kept[name].drop(stop)
        self.ahead = stop


class _Pass:
    """One pass over the frames of a clip, which follows up to `num_faces` at once and fills a `Faces`."""

    def __init__(self, backend: Backend, found: Faces, num_faces: int) -> None:
        self.backend, self.found, self.num_faces = backend, found, num_faces
        self.picture = np.empty(0, np.uint8)  # the current one
        self.times = 0  # that it was shown
        self.counted = False  # whether the detector has looked at it
        self.faces: list[Face] = []  # in it
        self.last: list[Face] = []  # that were found last
        self.search = Schedule(first_gap=align.MAX_GAP)

    def run(self) -> None:
        """Read all frames. Raises _SeveralFaces if a pass that follows several is needed."""
        found = self.found
        for shape, frames in groupby(enumerate(found.frames), key=_shape):
            if found.shapes:
                tracks.resized(found.tracks, found.shapes[-1][1], shape)
                self.last = []
            first = found.num_frames
            found.shapes.append((first, shape))
            with self.backend.landmarker(self.num_faces) as landmarker:
                for k, frame in frames:
                    self.read(landmarker, first, k, frame)

    def read(self, landmarker: Landmarker, first: int, k: int, frame: np.ndarray) -> None:
        """Read frame k of the clip; `first` is the landmarker's first."""
        found = self.found
        frame = np.ascontiguousarray(frame)  # MediaPipe silently misreads any other layout
        same = self.times > 0 and _same(frame, self.picture)
        found.stays.append(same)
        if not same:
            self.times, self.counted, self.picture = 0, False, frame
        self.times += 1
        if k % PROBE_EVERY == 0 and not self.counted:
            self.counted = True
            self.check(self.backend.count(frame))
        if self.times > READ:
            for pieces in found.kept.values():
                pieces.again(k)
        else:
            time = (k - first) * MS_PER_FRAME
            readings = landmarker.read(frame, time)
            if self.search.is_due(k, bool(readings)) and self.times == 1:
                for spots in self.backend.search(frame):
                    if readings := landmarker.start(frame, time, spots):
                        self.search.has_found(k)
                        self.check(len(spots))
                        break
            self.faces = [Face.of(one, frame.shape[:2]) for one in readings]
            self.last = self.faces or self.last
            for pieces in found.kept.values():
                pieces.add(k, frame, self.last)
        tracks.follow(found.tracks, k, self.faces, frame, steadied=self.num_faces > 1)
        if self.num_faces == 1:
            found.crop_early()

    def check(self, seen: int) -> None:
        """Raises _SeveralFaces if more faces are seen than this pass follows."""
        if (seen := min(seen, MAX_FACES)) > self.num_faces:
            raise _SeveralFaces(seen)


class _SeveralFaces(Exception):
    """Raised to request a pass that follows so many faces."""

    def __init__(self, seen: int) -> None:
        super().__init__(seen)
        self.seen = seen


def _shape(numbered: tuple[int, np.ndarray]) -> tuple[int, int]:
    """Height and width of a frame. Raises ValueError for an array that is no picture."""
    k, frame = numbered
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"frame {k} is {frame.dtype} {frame.shape}; expected uint8 (height, width, 3)")
    return frame.shape[0], frame.shape[1]


def _same(frame: np.ndarray, other: np.ndarray) -> bool:
    """Whether two pictures are the same to the bit; a few pixels are compared first, because most different pictures
    differ there."""
    if frame is other:
        return True
    few = (slice(None, None, 31), slice(None, None, 17))
    return frame.shape == other.shape and np.array_equal(frame[few], other[few]) and np.array_equal(frame, other)
