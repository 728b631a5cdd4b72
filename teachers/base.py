"""The interface of a teacher (a frozen model that turns clips into one embedding per frame), and how one is found by
its name.

Teachers are entry points of the group `concord.teachers`: NAME = module:factory, called as factory(argument, device),
where argument is what the user wrote after "NAME:", or "". Other packages add theirs the same way. `ClipMedia` and the
factory's signature are public; an incompatible change increments MEDIA_VERSION. A new field comes last and has a
default, so it is compatible.
"""

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

import numpy as np

from concord import extras
from concord.errors import ConcordError

MEDIA_VERSION = 1
GROUP = "concord.teachers"


class TeacherError(ConcordError):
    """A teacher cannot be loaded or cannot work: unknown name, missing or wrong weights, no such layer."""


@dataclass(frozen=True)
class ClipMedia:
    """One clip at the common rates: 25 frames and 16,000 samples per second.

    - `id`: names the clip in messages.
    - `audio` i2 [640 * frames], mono; 0 if there is no sound.
    - `mouth` u1 [frames, 96, 96], grey, aligned; 0 in frames without a face.
    - `lips` f4 [frames, 40, 2], pixels of the mean-face frame, origin at its mouth centre, y down.
    - `blendshapes` f4 [frames, 52], 0 to 1.
    - `flags` u1 [frames], bits of `concord.frames`: face detected, face interpolated, audio present, voice active, in use,
      picture held (it stands still, and its lips are no evidence).
    - `face` u1 [frames, 112, 112], grey, the whole face; None if not requested.
    - `num_faces`: the largest number of faces seen at once; -1 if not known. The arrays above are those of one face.
    - `mouth2`, `lips2`, `blendshapes2`, `flags2`: the same of a second face, which may be the speaker too; in flags only
      the bits of the face are set. None without one.

    A teacher with `stream` "audio" uses `audio` and the flags of sound and voice, one with "video" the other arrays.
    """

    id: str
    audio: np.ndarray
    mouth: np.ndarray
    lips: np.ndarray
    blendshapes: np.ndarray
    flags: np.ndarray
    face: np.ndarray | None = None
    num_faces: int = -1
    mouth2: np.ndarray | None = None
    lips2: np.ndarray | None = None
    blendshapes2: np.ndarray | None = None
    flags2: np.ndarray | None = None

    @property
    def num_frames(self) -> int:
        return len(self.flags)


class Teacher(Protocol):
    """A frozen model. A clip's rows do not depend on the other clips in the batch (`teachers.testing.contract`)."""

    name: str  # as the user wrote it, e.g. "whisper:tiny.en@3"
    dim: int  # columns of an embedding
    stream: str  # its input: "audio" or "video" ("both" is for inspection only; precompute does not accept it)

    def embed(self, clips: list[ClipMedia]) -> list[np.ndarray]:
        """Finite f4 [frames, dim] for each clip, in order; clips may have any length."""
        ...

    def provenance(self) -> dict[str, Any]:
        """Name, layer, source, sha256, options, dim and licence, ready for JSON, as a store records them."""
        ...


def known() -> list[str]:
    """Names of all teachers in installed packages, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load(name: str, device: str = "cpu") -> Teacher:
    """The teacher called `name` ("NAME" or "NAME:ARGUMENT"), its weights on `device`; TeacherError if it cannot be loaded."""
    kind, _, argument = name.partition(":")
    point = entry_point(kind)
    try:
        factory = point.load()
    except ImportError as error:
        raise TeacherError(
            f"teacher '{kind}' ({point.value}) cannot be imported: {extras.told(error) or error}"
        ) from error
    try:
        return factory(argument, device)
    except ModuleNotFoundError as error:
        raise TeacherError(f"teacher '{kind}' cannot be loaded: {extras.told(error) or error}") from error


def entry_point(kind: str) -> EntryPoint:
    """The entry point of teachers called `kind`; TeacherError if there is none."""
    points = list(entry_points(group=GROUP, name=kind))
    if not points:
        listed = ", ".join(known()) or "none: is concord-av itself installed?"
        raise TeacherError(
            f"unknown teacher '{kind}' (known here: {listed}); a teacher's package must be installed on the head and on "
            "every worker node"
        )
    return points[0]
