"""The stages that Ray's workers run on a batch: reading its clips (face stage), and the two teachers.

Each takes and returns plain values, runs without Ray, and turns a clip's failure into a receipt, so that the other
clips of the batch continue. A worker's threads are fixed, so that results do not depend on where a batch ran.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

import store
import teachers
from concord.arrays import large
from pipelines.hearing.tracks import AUTO
from pipelines.media.facts import sentences
from pipelines.media.files import MediaError
from pipelines.reasons import OVERFLOW
from pipelines.workers.threads import fix_threads
from pipelines.workers.watch import Watched, Watcher
from pipelines.workers.work import Side, Spooled, Work, check_device, opened, worker
from store import layout
from store.place import Place, place
from teachers import ClipMedia, Teacher
from teachers.face.tracker import NoFaceError

log = logging.getLogger(__name__)

PART = 4096  # rows of an embedding that are looked at together
_TEACHERS: dict[str, Teacher] = {}


def teacher(name: str) -> Teacher:
    """The teacher called `name`, on this worker's GPU if it has one; loaded once per process."""
    import torch

    if name not in _TEACHERS:
        _TEACHERS[name] = teachers.load(name, "cuda" if torch.cuda.is_available() else "cpu")
        fix_threads()
    return _TEACHERS[name]


class FaceStage:
    """Reads each clip of a batch, and checks that it fits its slot."""

    def __init__(
        self,
        backend: str | None = None,
        options: Mapping[str, str] | None = None,
        arrays: Sequence[str] = (),
        root: Place | None = None,
        mouth_crops: bool = False,
    ) -> None:
        """`backend`, `arrays` and `mouth_crops` are the watcher's; `options` are for media in buckets; `root` is the store
        in which clips longer than a shard are kept between stages."""
        self.options, self.root = options, root
        self.watcher = Watcher(backend, arrays, mouth_crops=mouth_crops)

    def __call__(self, work: Work) -> Work:
        for i, row in enumerate(work.rows):
            with work.timed(i):
                try:
                    audio = place(row.audio_path, self.options) if row.audio_path else None
                    path = place(row.path, self.options)
                    self._enter(work, i, self.watcher.watch(path, audio, row.id, row.audio_track or AUTO))
                except MediaError as error:
                    work.fail(i, "decode", error.reason, str(error))
                except NoFaceError as error:
                    work.fail(i, "face", error.reason, f"{row.path}: {error}")
                except Exception as error:  # must not affect the other clips; the ledger keeps it
                    work.surprise(i, "face", error, row.path)
        return work

    def _enter(self, work: Work, i: int, seen: Watched) -> None:
        """Put a decoded clip into its place in the batch; one that is longer than its slot fails."""
        clip, slot = seen.clip, work.slots[i]
        work.receipts[i] = replace(
            work.receipts[i],
            length=clip.num_frames,
            start_skew=seen.start_skew_s,
            quality=seen.quality,
            notes=sentences(seen.facts),
            num_faces=clip.num_faces,
            worker=worker(),
        )
        if clip.num_frames > slot.capacity:
            found = f"the header declares at most {slot.capacity} frames, {clip.num_frames} were decoded"
            work.fail(i, "slot", OVERFLOW, f"{found}; the clip gets a new slot")
            return
        long = self.root is not None and slot.capacity > layout.SHARD  # such a clip is alone in its batch
        work.clips[i] = Spooled.of(clip, self.root, work.name) if self.root is not None and long else clip


class TeacherStage:
    """Runs one frozen teacher on the clips of a batch. Its answer does not contain the clips."""

    def __init__(self, name: str, side: Side, device: str) -> None:
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
        work.embeddings(self.side)[:] = [found.get(i) for i in range(len(work.rows))]
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
            if not _fits_half(embedding):
                work.fail(i, self.side, "not_finite", f"teacher {self.teacher.name} gave values that f2 cannot hold")
                del found[i]
        return {i: _half(embedding) for i, embedding in found.items()}  # as in a store


def _fits_half(x: np.ndarray) -> bool:
    """Whether f2 can hold all values; NaN cannot be a value."""
    limit = np.finfo(np.float16).max
    return all(bool((np.abs(x[k : k + PART]) <= limit).all()) for k in range(0, len(x), PART))


def _half(x: np.ndarray) -> np.ndarray:
    """The values as f2, which can hold them."""
    found = large.zeros(x.shape, np.float16)
    for k in range(0, len(x), PART):
        found[k : k + PART] = x[k : k + PART]
    return found
