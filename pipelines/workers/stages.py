"""The stages that Ray's workers run on a batch: picture, sound and face, and the two teachers.

Each takes and returns plain values, needs no Ray to run, and turns a clip's failure into a receipt: the other clips of
the batch go on. A worker's threads are fixed, so that results do not depend on where a batch ran.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import store
from pipelines.media import local, probe
from pipelines.media.files import Media, MediaError
from pipelines.media.picture import Video
from pipelines.media.sound import decode_sound
from pipelines.workers.work import OVERFLOW, Spooled, Work, check_device, opened, worker
from store import layout
from store.place import Place, place
from teachers import ClipMedia
from teachers.face.tracker import NoFaceError

log = logging.getLogger(__name__)

THREADS = 1
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_TEACHERS: dict[str, Any] = {}


def fix_threads() -> None:
    """One thread for every numerical library of this worker: many workers share a machine, and sums stay in one order.

    Call it when the models are loaded: libraries that are not loaded yet find it in the environment.
    """
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(THREADS)))
    if "torch" in sys.modules:  # costs two seconds, which a worker that has no use for it need not spend
        sys.modules["torch"].set_num_threads(THREADS)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(THREADS)


def teacher(name: str) -> Any:
    """The teacher called `name`, on this worker's GPU if it has one; loaded once a process."""
    import torch

    import teachers

    if name not in _TEACHERS:
        _TEACHERS[name] = teachers.load(name, "cuda" if torch.cuda.is_available() else "cpu")
        fix_threads()
    return _TEACHERS[name]


class FaceStage:
    """Decode, track the face, find the voice: everything of a clip that the teachers and the store need."""

    def __init__(
        self,
        backend: str | None = None,
        options: Mapping[str, str] | None = None,
        arrays: Sequence[str] = (),
        root: Place | None = None,
    ) -> None:
        """`backend` is who runs the face networks (teachers.face.tracker); `options` are for media in buckets; `arrays` are
        those of layout.OPTIONAL_ARRAYS that are wanted; `root` is the store where clips longer than a shard are laid down
        meanwhile."""
        import cv2  # noqa: F401 - which crops; here, so that fix_threads finds it

        from teachers.face.tracker import FaceTracker
        from teachers.voice import VoiceActivity

        self.options, self.arrays, self.root = options, arrays, root
        self.tracker = FaceTracker(backend=backend)
        self.voice = VoiceActivity()
        fix_threads()

    def __call__(self, work: Work) -> Work:
        for i, row in enumerate(work.rows):
            with work.timed(i):
                try:
                    audio = place(row.audio_path, self.options) if row.audio_path else None
                    with (
                        local.local_copy(place(row.path, self.options)) as path,
                        local.local_copy(audio or path) as audio_path,
                    ):
                        self._clip(work, i, path, audio_path if audio else None)
                except MediaError as error:
                    work.fail(i, "decode", error.reason, str(error))
                except NoFaceError as error:
                    work.fail(i, "face", "no_face", f"{row.path}: {error}")
                except Exception as error:  # one clip's surprise must not cost its neighbours; the ledger keeps it
                    work.surprise(i, "face", error, row.path)
        return work

    def _clip(self, work: Work, i: int, path: Media, audio_path: Media | None) -> None:
        row = work.rows[i]
        if not probe.probe(path, audio_path).has_audio:  # found out before the dear part
            raise MediaError("no_audio", f"{row.audio_path or row.path} has no sound; name its sound as audio_path")
        video = Video(path)
        track = self.tracker.track(video, whole_faces="face" in self.arrays)
        num_frames = len(track.detected)
        slot = work.slots[i]
        sound = decode_sound(audio_path or path, None if audio_path else video.start_s, num_frames)
        work.receipts[i] = replace(
            work.receipts[i],
            length=num_frames,
            start_skew=sound.start_skew_s,
            quality=float(track.detected.mean()),
            worker=worker(),
        )
        if num_frames > slot.capacity:
            message = f"the header promises at most {slot.capacity} frames, {num_frames} were decoded; the clip gets a new slot"
            work.fail(i, "slot", OVERFLOW, message)
            return
        flags = np.full(num_frames, layout.IN_USE, np.uint8)
        flags |= track.detected * np.uint8(layout.FACE_DETECTED) | track.interpolated * np.uint8(
            layout.FACE_INTERPOLATED
        )
        flags |= sound.present * np.uint8(layout.AUDIO_PRESENT)
        flags |= (self.voice.frames(sound.samples) & sound.present) * np.uint8(layout.VOICE_ACTIVE)
        clip = ClipMedia(row.id, sound.samples, track.mouth, track.lips, track.blendshapes, flags, track.face)
        long = self.root is not None and slot.capacity > layout.SHARD  # then it is alone in its batch
        work.clips[i] = Spooled.of(clip, self.root, work.name) if self.root is not None and long else clip


class TeacherStage:
    """One frozen teacher over the clips of a batch; side is "asr" or "vsr". Its answer leaves the clips where they were."""

    def __init__(self, name: str, side: str, device: str) -> None:
        import teachers

        fix_threads()
        self.side = side
        self.teacher = teachers.load(name, device)
        fix_threads()

    def __call__(self, work: Work) -> Work:
        index = [i for i, clip in enumerate(work.clips) if clip is not None]
        start = time.perf_counter()
        found = self._embed(work, index)
        share = (time.perf_counter() - start) / max(len(index), 1)
        for i in index:
            work.receipts[i] = replace(work.receipts[i], seconds=work.receipts[i].seconds + share)
        setattr(work, self.side, [found.get(i) for i in range(len(work.rows))])
        work.clips, work.lean = [None] * len(work.rows), True
        return work

    def _embed(self, work: Work, index: list[int]) -> dict[int, np.ndarray]:
        clips: list[ClipMedia] = []
        for i in list(index):
            try:
                clips.append(opened(work.clips[i]))
            except (OSError, store.StoreError) as error:
                work.fail(i, self.side, "io", f"{work.rows[i].path}: {error}")
                index.remove(i)
        try:
            found = dict(zip(index, self.teacher.embed(clips), strict=True))
        except Exception as error:
            check_device(error)
            log.warning(
                "batch %s: %s failed on it as a whole (%s); running its clips one by one", work.name, self.side, error
            )
            found = {}
            for i, clip in zip(index, clips, strict=True):
                try:
                    found[i] = self.teacher.embed([clip])[0]
                except Exception as alone:
                    work.surprise(i, self.side, alone, f"{work.rows[i].path}: teacher {self.teacher.name}")
        lengths = {i: clip.num_frames for i, clip in zip(index, clips, strict=True)}
        for i, embedding in list(found.items()):
            if embedding.shape != (lengths[i], self.teacher.dim):
                raise AssertionError(f"teacher {self.teacher.name} gave {embedding.shape} for {lengths[i]} frames")
            if not (np.abs(embedding) <= np.finfo(np.float16).max).all():  # NaN fails this too
                work.fail(i, self.side, "not_finite", f"teacher {self.teacher.name} gave values that f2 cannot hold")
                del found[i]
        return {i: embedding.astype(np.float16) for i, embedding in found.items()}  # as a store keeps it
