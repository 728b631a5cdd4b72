"""A real clip as the forging methods get it: a window of its pictures, the points of one face, its sound and its voice.

The window is the longest run of frames that show one face, no profile, without a cut, at most MOST frames, looked for in
the first LOOK_S seconds. Of several faces the largest is followed. Outputs leave out `trim` frames at both ends of the
window, so that shifted sound is real sound; that holds for real and forged outputs alike.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from concord import files
from concord.arrays import large
from concord.errors import ConcordError
from pipelines.corpora.manifest import Row
from pipelines.hearing.tracks import AUTO, choose_track
from pipelines.media import shots
from pipelines.media.files import Media, MediaError
from pipelines.media.local import local_copy
from pipelines.media.picture import Video
from pipelines.workers.watch import hear
from store.layout import FPS, SAMPLES_PER_FRAME
from teachers.face import align, backends, tracker
from teachers.face.tracks import MS_PER_FRAME
from teachers.files import face_model

LOOK_S = 60
MOST = 280  # frames of a window: 10 s and both trims
LEAST = 40  # frames of a window: 1 s is left after the trims, and one that fits twice into a partial forgery
TRIM = 5, 15  # frames, least and most, that are left out at both ends: a tenth of the window
LEAST_VOICE = 10  # frames with voice in an output
EDGE = 4_000_000  # bytes of a file's beginning and of its end that tell files apart
SIDE = 1280  # pixels: larger pictures are scaled down
MAX_FACES = 4
TURNED = 0.18  # least share of the face's width on either side of the nose: less in profiles, whose far side cannot be warped
NUM_POINTS = 468  # of MediaPipe's: without the irises, which move on their own
STEADY = 0.8  # frames, standard deviation of the smoothing of points in time


class NoSpeech(ConcordError):
    """A clip in which too little is spoken for a forgery of its voice or lips."""

    reason = "no_speech"


@dataclass(frozen=True)
class Clip:
    """The window of a clip: `points` f4 [frames, 468, 2], MediaPipe's, pixels of its pictures; `sound` i2 [640 * frames];
    `voice` bool [frames]. `pictures` u1 [frames, height, width, 3] only where they were asked for."""

    points: np.ndarray
    sound: np.ndarray
    voice: np.ndarray
    first: int  # frame of the file with which the window begins
    size: tuple[int, int]  # height and width, both even
    trim: int
    file: str = ""  # `mark` of the file with the pictures; "" = not known
    pictures: np.ndarray | None = None

    @property
    def num_frames(self) -> int:
        return len(self.points)

    @property
    def kept(self) -> slice:
        """The frames of the output."""
        return slice(self.trim, self.num_frames - self.trim)

    @property
    def kept_samples(self) -> slice:
        """Their samples."""
        return slice(self.trim * SAMPLES_PER_FRAME, (self.num_frames - self.trim) * SAMPLES_PER_FRAME)

    def save(self, path: Path) -> None:
        """Write everything but the pictures."""
        packed = io.BytesIO()
        about = np.array([self.first, *self.size, self.trim])
        arrays = {"points": self.points, "sound": self.sound, "voice": self.voice, "about": about}
        arrays["origin"] = np.array(self.file)
        np.savez_compressed(packed, **arrays)  # type: ignore[arg-type]  # numpy's stubs take names for allow_pickle
        files.write(path, packed.getvalue())

    @classmethod
    def load(cls, path: Path) -> Clip:
        """What `save` wrote. Raises OSError, and ValueError or KeyError if it is damaged."""
        with np.load(path) as arrays:
            first, height, width, trim = arrays["about"].tolist()
            file = str(arrays["origin"]) if "origin" in arrays else ""
            return cls(arrays["points"], arrays["sound"], arrays["voice"], first, (height, width), trim, file)


class Reader:
    """The models that read clips, loaded once for many."""

    def __init__(self) -> None:
        """Raises TeacherError if a model is missing."""
        from teachers.voice import VoiceActivity

        self.backend = backends.load(None, face_model.find().path)
        self.voice = VoiceActivity()

    def read(self, row: Row) -> Clip:
        """The window of a clip, without its pictures. Raises MediaError, NoFaceError and NoSpeech."""
        with local_copy(row.path) as path, local_copy(row.audio_path or path) as sounds:
            heard = choose_track(sounds, AUTO if row.audio_track is None else row.audio_track, self.voice.frames)
            video = Video(path)
            points, found, thumbs, size = _followed(self.backend, video)
            filled, interpolated = align.fill_gaps(points, found)
            first, stop = _window(found | interpolated, thumbs, row.path)
            file = mark(path)
            start_s = None if row.audio_path else video.start_s
            sound = hear(sounds, start_s, stop, heard.track.index, self.voice.frames)
            first, stop = _with_sound(sound.present, first, stop, row.path)
            from scipy.ndimage import gaussian_filter1d

            scaled = np.array(scaled_size(*size))[::-1] / np.array(size)[::-1]
            steady = gaussian_filter1d((filled[first:stop] + 0.5) * scaled - 0.5, STEADY, axis=0, mode="nearest")
        samples = sound.samples[first * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME]
        voice = self.voice.frames(samples)
        low, high = TRIM
        trim = min(max((stop - first) // 10, low), high)
        clip = Clip(steady.astype(np.float32), samples, voice, first, scaled_size(*size), trim, file)
        if (spoken := int(voice[clip.kept].sum())) < LEAST_VOICE:
            raise NoSpeech(f"{row.path}: somebody speaks in {spoken} frames, at least {LEAST_VOICE} are needed")
        return clip


def pictures(row: Row, clip: Clip) -> np.ndarray:
    """The pictures of the window, u1 [frames, height, width, 3]. Raises MediaError."""
    import cv2

    found = large.zeros((clip.num_frames, *clip.size, 3), np.uint8)
    with local_copy(row.path) as path:
        window = islice(Video(path), clip.first, clip.first + clip.num_frames)
        k = -1
        for k, picture in enumerate(window):
            if picture.shape[:2] == clip.size:
                found[k] = picture
            else:
                found[k] = cv2.resize(picture, clip.size[::-1], interpolation=cv2.INTER_AREA)
        same = clip.file in ("", mark(path))
    if k + 1 != clip.num_frames or not same:
        raise MediaError("truncated", f"{row.path} has changed since it was read; start again in a new folder")
    return found


def mark(path: Media) -> str:
    """A text that differs between files of other content: its size and a hash of its beginning and end; "" for one in a
    bucket. Raises OSError."""
    if not isinstance(path, str | os.PathLike):
        return ""
    with Path(path).open("rb") as file:
        found = hashlib.sha256(file.read(EDGE))
        size = file.seek(0, io.SEEK_END)
        file.seek(max(size - EDGE, 0))
        found.update(file.read(EDGE))
    return f"{size} {found.hexdigest()[:16]}"


def scaled_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of an output: even, the longer one at most SIDE."""
    scale = min(1.0, SIDE / max(height, width))
    return max(2 * round(height * scale / 2), 2), max(2 * round(width * scale / 2), 2)


def _followed(backend: Any, video: Video) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
    """Of the first LOOK_S: points f4 [frames, 468, 2] of one face, in which frames it was found, thumbnails u1 [frames, 16,
    16], and the height and width of the first picture; frames of another size count as without a face."""
    import cv2

    num_faces = 1
    while True:
        points, found, thumbs, last, size = [], [], [], None, (0, 0)
        with backend.landmarker(num_faces) as landmarker:
            for k, picture in enumerate(_looked_at(video)):
                size = size if k else picture.shape[:2]
                picture = np.ascontiguousarray(picture)
                if k % tracker.PROBE_EVERY == 0 and (seen := min(backend.count(picture), MAX_FACES)) > num_faces:
                    num_faces = seen
                    break
                faces = [
                    face.points[:NUM_POINTS] * picture.shape[1::-1] - 0.5 for face in _read(landmarker, picture, k)
                ]
                face = _chosen(faces, last) if picture.shape[:2] == size else None
                face = face if face is None or is_turned_to_us(face) else None
                last = last if face is None else face
                points.append(np.zeros((NUM_POINTS, 2)) if face is None else face)
                found.append(face is not None)
                small = cv2.resize(picture, (shots.SIDE, shots.SIDE), interpolation=cv2.INTER_AREA)
                thumbs.append(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
            else:
                return np.array(points), np.array(found), np.array(thumbs), size


def is_turned_to_us(face: np.ndarray) -> bool:
    """Whether the points [468, 2] are of a face that shows both of its sides."""
    nose, right, left = face[[1, 234, 454]]
    across = left - right
    share = float((nose - right) @ across / max(float(across @ across), 1e-9))
    return TURNED <= share <= 1 - TURNED


def _looked_at(video: Video) -> Iterable[np.ndarray]:
    yield from islice(video, LOOK_S * FPS)


def _read(landmarker: Any, picture: np.ndarray, k: int) -> Iterator[Any]:
    yield from landmarker.read(picture, k * MS_PER_FRAME)


def _chosen(faces: list[np.ndarray], last: np.ndarray | None) -> np.ndarray | None:
    """The face nearest to the last one, relative to its size, if that is near; else the largest."""
    if not faces:
        return None
    if last is not None:
        away = [float(np.abs(face.mean(0) - last.mean(0)).max() / np.ptp(last[:, 1])) for face in faces]
        if min(away) < 0.5:
            return faces[int(np.argmin(away))]
    return max(faces, key=lambda face: float(np.ptp(face[:, 0]) * np.ptp(face[:, 1])))


def _window(faced: np.ndarray, thumbs: np.ndarray, path: str) -> tuple[int, int]:
    """[first, stop) of the longest run with a face and without a cut, at most MOST. Raises MediaError and NoFaceError."""
    if len(faced) < LEAST:
        text = f"{path} lasts {len(faced) / FPS:.1f} s, at least {LEAST / FPS:.1f} s are needed"
        raise MediaError("too_short", f"{text}; leave it out")
    shot = np.zeros(len(faced), int)
    shot[shots.cuts(thumbs)] = 1
    found = align.runs(faced, np.cumsum(shot))
    first, stop = max(found, key=lambda run: (run[1] - run[0], -run[0]), default=(0, 0))
    if stop - first < LEAST:
        text = f"{path}: a face is seen in at most {stop - first} frames without a break"
        raise tracker.NoFaceError(f"{text}; at least {LEAST} are needed")
    return first, min(stop, first + MOST)


def _with_sound(present: np.ndarray, first: int, stop: int, path: str) -> tuple[int, int]:
    """The window without frames at its ends that have no sound, or only in part: shifted sound would show them. Raises
    MediaError."""
    there = np.flatnonzero(present[first:stop])
    low = first + int(there[0]) + (there[0] > 0) if len(there) else stop
    high = first + int(there[-1]) + (there[-1] == stop - first - 1) if len(there) else stop
    if high - low < LEAST:
        raise MediaError(
            "too_short", f"{path} has sound for {max(high - low, 0)} frames of its face, at least {LEAST} are needed"
        )
    return int(low), int(high)
