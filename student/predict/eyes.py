"""What opens a video, and so runs in a child process: questions about a file, and their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from pipelines.media import probe
from pipelines.media.picture import Video
from pipelines.workers.watch import Watched, Watcher
from store.place import place
from teachers.face.tracker import MAX_FACES

JPEG_QUALITY = 72
T_co = TypeVar("T_co", covariant=True)


class Question(Protocol[T_co]):
    """A question about a file, answered in the child process."""

    @property
    def path(self) -> str: ...

    def answer(self, watcher: Watcher) -> T_co: ...


@dataclass(frozen=True)
class NumFrames:
    """The number of frames in the file's header."""

    path: str

    def answer(self, watcher: Watcher) -> int:
        return probe.probe(place(self.path)).num_frames


@dataclass(frozen=True)
class Watch:
    """The whole clip."""

    path: str
    id: str
    audio_track: int

    def answer(self, watcher: Watcher) -> Watched:
        return watcher.watch(place(self.path), clip_id=self.id, audio_track=self.audio_track)


@dataclass(frozen=True)
class Pictures:
    """Some frames as JPEGs, `width` pixels wide."""

    path: str
    frames: list[int]
    width: int

    def answer(self, watcher: Watcher) -> dict[int, bytes]:
        return _pictures(self.path, self.frames, self.width)


class Eyes:
    """Runs in the child process: everything that opens a file."""

    def __init__(self, arrays: Sequence[str] = (), mouth_crops: bool = False) -> None:
        """`arrays`: the members of layout.OPTIONAL_ARRAYS that clips need; `mouth_crops`: they are mouth crops already."""
        self.watcher = Watcher(arrays=arrays, others=MAX_FACES - 1, mouth_crops=mouth_crops)

    def __call__(self, asked: Question[Any]) -> Any:
        return asked.answer(self.watcher)


def _pictures(path: str, frames: list[int], width: int) -> dict[int, bytes]:
    import cv2

    wanted, found = set(frames), {}
    for k, picture in enumerate(Video(place(path))):
        if k in wanted:
            height = max(1, round(picture.shape[0] * width / picture.shape[1]))
            small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            found[k] = jpeg(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        if k >= max(frames):
            break
    return found


def jpeg(picture: np.ndarray) -> bytes:
    import cv2

    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
