"""The teachers' evidence on one video, without a store: face, voice, embeddings, projections, words.

The video is read as in precompute (`pipelines.workers.watch`), in a child process: a file that crashes or hangs a
decoder loses only its own answer. Teachers and maps run in this process. Embeddings and projections are rounded as in a
store, so a clip gets the same similarities here as there. Decisions are made in `student.predict.answer`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import teachers
from concord.arrays import large
from concord.errors import ConcordError
from pipelines.corpora import folder as corpora_folder
from pipelines.corpora import manifest
from pipelines.corpora.fields import ManifestError
from pipelines.hearing.tracks import AUTO
from pipelines.labels import projection
from pipelines.labels.projection import half
from pipelines.media.facts import Fact
from pipelines.media.files import MediaError
from pipelines.seeing import crops
from pipelines.workers import isolation
from pipelines.workers.threads import fix_threads
from pipelines.workers.work import check_device, reason_of, traceback_of
from store import layout
from store.place import place
from store.similarity import Fit
from student.predict.eyes import Eyes, NumFrames, Pictures, Question, Watch, jpeg
from teachers import ClipMedia, TeacherError, recorded
from teachers.face.tracker import NoFaceError
from teachers.whisper.transcribe import Word

log = logging.getLogger(__name__)

T_co = TypeVar("T_co", covariant=True)

PARTS = 3  # a piece of sound overlaps the next by two thirds
TOGETHER = 32  # pieces in one call of a teacher


class Unusable(ConcordError):
    """A video without evidence. `reason` is one of `pipelines.reasons.REASONS`, `str(error)` a sentence for the
    user."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


@dataclass(frozen=True)
class Evidence:
    """One video after both teachers: its media, projections f2 [frames, K] of lips and sound, words in order, and the
    embeddings f2 behind the projections (`vsr` [frames, Dv], `asr` [frames, Da]).

    `start_skew_s` is the start of the sound minus that of the picture in the file; `facts` are what a person should know
    of the file; `others` are the same video with other faces that may be the speaker (`student.predict.agreement`), and
    `unsettled` says that none of them is chosen.
    """

    path: str
    clip: ClipMedia
    vsr_projection: np.ndarray
    asr_projection: np.ndarray
    words: list[Word]
    start_skew_s: float
    facts: tuple[Fact, ...] = ()
    others: tuple[Evidence, ...] = ()
    unsettled: str = ""
    vsr: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float16))
    asr: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float16))

    @property
    def face(self) -> np.ndarray:
        """bool [frames]: a face was detected."""
        return (self.clip.flags & layout.FACE_DETECTED) > 0

    @property
    def evident(self) -> np.ndarray:
        """bool [frames]: a face was detected, and its picture is not held."""
        return layout.evident(self.clip.flags)

    @property
    def voice(self) -> np.ndarray:
        """bool [frames]: voice is active."""
        return (self.clip.flags & layout.VOICE_ACTIVE) > 0


class Witness:
    """Child, both teachers and the fit's maps, loaded once for many videos. Use as a context manager."""

    def __init__(
        self,
        fit: Fit,
        records: Mapping[str, Mapping[str, Any]],
        device: str = "cpu",
        piece: int = 0,
        arrays: Sequence[str] = (),
        audio_track: int = AUTO,
        mouth_crops: bool = False,
    ) -> None:
        """`records` are the fit's records of its teachers, {"asr": .., "vsr": ..}: only the file name of a path is
        used, and weights only if their SHA-256 is the recorded one (`teachers.recorded`). `piece` is the length in
        frames of the clips that the fit has learned from (see `in_pieces`), 0 for any; `arrays` are the members of
        layout.OPTIONAL_ARRAYS that clips need; `audio_track` is the number of the sound track to take; `mouth_crops`:
        clips are mouth crops already.

        Raises TeacherError, WeightsError, OtherWeights, ChildLost.
        """
        self.asr, self.vsr = (recorded.load(records[side], device, foreign=True) for side in ("asr", "vsr"))
        if mouth_crops:
            crops.check_teacher(
                self.vsr, "name a fit of such clips with --fit-from (precompute.py --mouth-crops makes one)"
            )
            if arrays:
                raise TeacherError("this detector sees whole faces, which mouth crops do not show; omit --mouth-crops")
        self.to_vsr, self.to_asr = projection.maps(fit)
        self.piece, self.audio_track = piece, audio_track
        fix_threads()
        self.child: isolation.Child[Question[Any], Any] = isolation.Child(partial(Eyes, arrays, mouth_crops))

    def __enter__(self) -> Witness:
        return self

    def __exit__(self, *_: Any) -> None:
        self.child.close()

    def provenance(self) -> dict[str, Any]:
        """The teachers' provenance, by side."""
        return {"asr": self.asr.provenance(), "vsr": self.vsr.provenance()}

    def hear_and_see(self, path: str | os.PathLike[str], words: bool = True) -> tuple[Evidence, dict[str, float]]:
        """All evidence on a video, and the seconds for each part of the work; `words` take most. Raises Unusable."""
        row = _row(path)
        seconds: dict[str, float] = {}
        begun = time.perf_counter()
        frames = self._ask(NumFrames(row.path), 0)
        seen = self._ask(Watch(row.path, row.id, self.audio_track), frames)
        clip = seen.clip
        seconds["face and voice"] = time.perf_counter() - begun

        begun = time.perf_counter()
        try:
            asr = in_pieces(self.asr, clip, self.piece)
            vsr = [self.vsr.embed([one])[0] for one in (clip, *seen.others)]
        except TeacherError as error:
            raise Unusable("not_finite", f"{row.path}: {error}") from error
        except Exception as error:
            check_device(error)  # without its GPU this process cannot continue
            raise _unforeseen(row.path, error) from error
        # half() clips infinite values into its range, so check first
        asr, vsr = half(_finite(asr, row.path)), [half(_finite(x, row.path)) for x in vsr]
        heard = half(_finite(self.to_asr(asr, clip.flags), row.path))
        people = zip((clip, *seen.others), vsr, strict=True)
        shown = [half(_finite(self.to_vsr(x, one.flags), row.path)) for one, x in people]
        seconds["teachers"] = time.perf_counter() - begun

        begun = time.perf_counter()
        said = self.asr.transcribe([clip])[0] if words and hasattr(self.asr, "transcribe") else []
        seconds["words"] = time.perf_counter() - begun
        found = Evidence(row.path, clip, shown[0], heard, said, seen.start_skew_s, seen.facts, vsr=vsr[0], asr=asr)
        pairs = zip(seen.others, shown[1:], vsr[1:], strict=True)
        others = tuple(replace(found, clip=other, vsr_projection=lips, vsr=rows) for other, lips, rows in pairs)
        return replace(found, others=others), seconds

    def pictures(self, evidence: Evidence, frames: list[int], width: int) -> dict[int, bytes]:
        """Those frames of the video as JPEGs, `width` pixels wide; none if the file can no longer be read."""
        try:
            return self._ask(Pictures(_row(evidence.path).path, frames, width), evidence.clip.num_frames)
        except Unusable:
            return {}

    def _ask(self, question: Question[T_co], frames: int) -> T_co:
        """The child's answer; the time limit depends on the number of frames. Raises Unusable."""
        try:
            answer: T_co = self.child(question, isolation.limit_s(frames, None))
            return answer
        except MediaError as error:
            raise Unusable(error.reason, str(error)) from error
        except NoFaceError as error:
            raise Unusable(error.reason, f"{question.path}: {error}") from error
        except isolation.ChildLost as error:
            log.debug("%s: %s\n%s", question.path, error, error.trace)
            raise Unusable(error.reason, f"{question.path}: {error}; check the file") from error
        except Exception as error:  # an unexpected error in one file must not affect the others
            raise _unforeseen(question.path, error) from error


def videos(paths: list[str]) -> list[str]:
    """The files that `paths` name: files themselves, and from folders all files with a video's suffix, sorted by name.

    A file named twice is listed once. A folder without videos raises ManifestError, and so do paths none of which exists.
    """
    found: list[str] = []
    for path in paths:
        if not os.path.isdir(path):
            found.append(os.path.abspath(path))
            continue
        inside = [os.path.abspath(place(name).path) for name, _ in corpora_folder.videos(path)]
        if not inside:
            raise ManifestError(f"no video is in {path}; name a folder with videos, or the files themselves")
        found += inside
    found = list(dict.fromkeys(found))
    if found and all(map(_is_gone, found)):
        rest = len(found) - 1
        others = "" if not rest else ", nor does the other" if rest == 1 else f", nor do the {rest} others"
        raise ManifestError(f"{found[0]} does not exist{others}")
    return found


def _is_gone(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # something is there, and its answer says what
        return False
    return False


def in_pieces(teacher: teachers.Teacher, clip: ClipMedia, piece: int) -> np.ndarray:
    """Embedding f4 [frames, dim] of a clip's sound from overlapping pieces of `piece` frames; each row comes from the
    piece in which it is closest to the middle. 0 = do not cut.

    A speech model's rows depend on their position in its input, so a fit learned on clips of 3 s misjudges speech at 20
    s. For GRID clips joined to 30 s the median score fell from .66 to .50, and 10 % were below one half; in pieces it
    was .64, and 3 %.
    """
    length = clip.num_frames
    if not 0 < piece < length:
        return teacher.embed([clip])[0]
    step = max(1, piece // PARTS)
    starts = [*range(0, length - piece, step), length - piece]
    out = large.zeros((length, teacher.dim), np.float32)
    for k in range(0, len(starts), TOGETHER):
        few = range(k, min(k + TOGETHER, len(starts)))
        for i, rows in zip(few, teacher.embed([_part(clip, starts[i], piece) for i in few]), strict=True):
            first = 0 if i == 0 else (starts[i] + starts[i - 1] + piece) // 2  # the middle of the overlap
            out[first : starts[i] + piece] = rows[first - starts[i] :]
    return out


def _part(clip: ClipMedia, start: int, frames: int) -> ClipMedia:
    rows = slice(start, start + frames)
    per_frame = layout.SAMPLES_PER_FRAME
    sound = clip.audio[start * per_frame : (start + frames) * per_frame]
    return ClipMedia(clip.id, sound, clip.mouth[rows], clip.lips[rows], clip.blendshapes[rows], clip.flags[rows])


def _finite(x: np.ndarray, path: str) -> np.ndarray:
    """The array itself. Raises Unusable if it holds a value that is not finite."""
    if not all(np.isfinite(x[k : k + projection.PIECE]).all() for k in range(0, len(x), projection.PIECE)):
        message = f"{path}: the models gave numbers that are not finite: their weights or the fit are damaged"
        raise Unusable("not_finite", message)
    return x


def mouths(evidence: Evidence, frames: list[int]) -> dict[int, bytes]:
    """The mouth crops of those frames as JPEGs."""
    return {k: jpeg(evidence.clip.mouth[k]) for k in frames}


def _row(path: str | os.PathLike[str]) -> manifest.Row:
    return manifest.complete([manifest.Row(os.path.abspath(path))], "video", Path("/"))[0]


def _unforeseen(path: str, error: Exception) -> Unusable:
    log.debug("%s:\n%s", path, traceback_of(error))
    return Unusable(reason_of(error), f"{path}: {type(error).__name__}: {error}")
