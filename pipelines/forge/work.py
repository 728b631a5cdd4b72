"""What happens to one output, in a child process: read or forge a clip, encode it, and note what it was made of."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from concord import files
from concord.command import told
from pipelines.demo import film
from pipelines.forge import folder, plan
from pipelines.forge.plan import Source
from pipelines.forging.kinds import Forged, Given, NoDonor
from pipelines.forging.methods import METHODS
from pipelines.forging.reading import Clip, NoSpeech, Reader, pictures
from pipelines.forging.speaking import Speaker
from pipelines.media.files import MediaError
from pipelines.workers.threads import fix_threads
from store.layout import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from teachers.face.tracker import NoFaceError

log = logging.getLogger(__name__)

# One encoder for real and forged clips. Colours are named, because players guess them from the size of the picture.
COLOURS = ":colormatrix=smpte170m:colorprim=smpte170m:transfer=smpte170m:range=tv"
CODING = film.Coding(SAMPLE_RATE, 96_000, "veryfast", 19, COLOURS, faststart=True)


@dataclass(frozen=True)
class Task:
    """One output: a real clip itself (method REAL), or a forgery of it."""

    source: Source
    method: str
    donor: Source | None = None

    @property
    def id(self) -> str:
        return f"{self.method}/{self.source.name}"


@dataclass(frozen=True)
class Outcome:
    """What became of it; `reason` is empty if the output is there, else one of `pipelines.reasons.REASONS`."""

    reason: str = ""
    message: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Opening:
    """What a child process needs to begin; it pickles."""

    root: Path
    seed: int

    def __call__(self) -> Forge:
        return Forge(self.root, self.seed)


class Forge:
    """The models of one process."""

    def __init__(self, root: Path, seed: int) -> None:
        """Raises TeacherError if a model is missing."""
        import cv2  # noqa: F401 - so that fix_threads finds it

        self.root, self.seed = root, seed
        self.reader, self.speaker = Reader(), Speaker()
        fix_threads()

    def __call__(self, task: Task) -> Outcome:
        """Make one output, unless it is there."""
        begun = time.monotonic()
        try:
            if not folder.is_finished(self.root, task.method, task.source.name):
                self._real(task.source) if task.method == plan.REAL else self._forged(task)
            reason, message = "", ""
        except (MediaError, NoFaceError, NoSpeech, NoDonor) as error:
            reason, message = error.reason, str(error)
        except OSError as error:
            reason, message = "io", told(error)
        except MemoryError as error:
            reason, message = "memory", told(error)
        except Exception as error:  # one clip never ends a run
            log.exception("%s", task.id)
            reason, message = "error", told(error)
        return Outcome(reason, message, time.monotonic() - begun)

    def _real(self, source: Source) -> None:
        """Read a clip, keep what methods need of it, and encode it again."""
        clip = self.reader.read(source.row)
        clip = replace(clip, pictures=pictures(source.row, clip))
        clip.save(folder.points(self.root, source.name))
        self._encode(Task(source, plan.REAL), clip, Forged(used_donor=False))

    def _forged(self, task: Task) -> None:
        """Forge a clip that was read before, and encode it."""
        source, method = task.source, METHODS[task.method]
        clip = Clip.load(folder.points(self.root, source.name))
        clip = replace(clip, pictures=pictures(source.row, clip))
        donor = Clip.load(folder.points(self.root, task.donor.name)) if task.donor else None
        rng = plan.seed_of(self.seed, source.name, method.name)
        self._encode(task, clip, method.make(Given(clip, donor, rng, self.speaker)))

    def _encode(self, task: Task, clip: Clip, forged: Forged) -> None:
        shown = clip.pictures if forged.pictures is None else forged.pictures
        heard = clip.sound if forged.sound is None else forged.sound
        assert shown is not None
        assert (len(shown), len(heard)) == (clip.num_frames, len(clip.sound))
        about = _about(task, clip, forged, self.seed)
        with files.replacing(plan.place(self.root, task.method, task.source.name)) as partial:
            film.encode(partial, _each(shown[clip.kept]), heard[clip.kept_samples], CODING)
            about[folder.SIZE] = partial.stat().st_size
            folder.write_note(folder.note(self.root, task.method, task.source.name), about)


def _each(shown: np.ndarray) -> Iterator[np.ndarray]:
    yield from shown


def _about(task: Task, clip: Clip, forged: Forged, seed: int) -> dict[str, Any]:
    """The note of an output: labels, forged parts in seconds, and what was drawn."""
    part = forged.part and tuple(k - clip.trim for k in forged.part)
    segments = [[round(k / FPS, 3) for k in part]] if part else []
    return {
        "audio_fake": int(forged.sound is not None),
        "video_fake": int(forged.pictures is not None),
        "audio_segments": segments if forged.sound is not None else [],
        "video_segments": segments if forged.pictures is not None else [],
        "donor": task.donor.row.id if task.donor and forged.used_donor else "",
        "donor_people": list(people(task.donor)) if task.donor and forged.used_donor else [],
        "first_frame": clip.first + clip.trim,
        "frames": (clip.kept_samples.stop - clip.kept_samples.start) // SAMPLES_PER_FRAME,
        "face": _square(clip),
        "seed": seed,
        "note": forged.note,
    }


def _square(clip: Clip) -> list[int]:
    """Left, top, right and bottom, pixels, of a square around the face in all frames, for the contact sheet."""
    points = clip.points[clip.kept]
    low, high = points.min((0, 1)), points.max((0, 1))
    half = float((high - low).max()) * 0.62
    (x, y), (height, width) = (low + high) / 2, clip.size
    return [max(int(x - half), 0), max(int(y - half), 0), min(int(x + half), width), min(int(y + half), height)]


def people(source: Source) -> tuple[str, ...]:
    """Who is in a clip; a clip that names nobody is a person of its own."""
    return source.row.identities or (source.row.group or source.row.id,)
