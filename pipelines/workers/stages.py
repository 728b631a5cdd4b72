"""The stages that Ray's workers run on a batch: picture and sound, the two teachers, staging, packing.

Each takes and returns plain values, needs no Ray to run, and turns a clip's failure into a receipt: the other clips of
the batch go on. A worker's threads are fixed, so that results do not depend on where a batch ran.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

import store
from pipelines.corpora.manifest import Row
from pipelines.media import decode as media
from pipelines.workers.plan import ShardGroup, Slot, clips_of_shard
from store import layout, staging
from store.place import Place, place
from teachers import ClipMedia
from teachers.face.tracker import NoFaceError

log = logging.getLogger(__name__)

INFRASTRUCTURE = {
    "io",
    "memory",
    "killed",
    "device",
}  # reasons that say nothing of the clip: the next run tries it again
OVERFLOW = "longer_than_slot"  # the header promised fewer frames; the clip is worked on again with a slot that fits
THREADS = 1
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# How errors begin after which a GPU answers nothing any more in this process: cudaErrorAssert, illegal address, ECC ...
DEVICE_ERRORS = (
    "CUDA error",
    "HIP error",
    "CUDA driver error",
    "cuDNN error",
    "CUBLAS_STATUS",
    "CUDNN_STATUS",
    "CUFFT",
)
TRACE = 12_000  # characters of a traceback that are kept, of its beginning and its end
_TEACHERS: dict[str, Any] = {}


class DeviceError(Exception):
    """A device does not answer any more, whichever clip it is given: this process must end and another do its work."""


@dataclass(frozen=True)
class Receipt:
    """What a batch reports of one clip. `reason` is empty while all is well, `trace` the traceback of an error that nobody
    foresaw; times are seconds of work."""

    clip: int
    id: str
    path: str
    stage: str = "done"
    reason: str = ""
    message: str = ""
    seconds: float = 0.0
    worker: str = ""
    attempts: int = 1
    length: int = 0
    start_skew: float = 0.0
    quality: float = 0.0
    trace: str = ""

    @property
    def ok(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class Span:
    """What a worker did on a batch: clips and frames that it handed on, frames that the longest clip would make of all of
    them, and from when to when (seconds since 1970)."""

    stage: str
    worker: str
    begun: float
    ended: float
    clips: int
    frames: int
    padded: int

    @classmethod
    def of(cls, stage: str, begun: float, work: Work) -> Span:
        """The span of this process's work on a batch, which ends now."""
        lengths = [clip.num_frames for clip in work.clips if clip is not None]
        padded = len(lengths) * max(lengths, default=0)
        return cls(stage, worker(), begun, time.time(), len(lengths), sum(lengths), padded)


@dataclass(frozen=True)
class Spooled:
    """A clip longer than a shard, which goes from stage to stage as a file under `_staging/`: through pipes and Ray's object
    store it would be in memory once for each worker, and beyond two hours not fit Ray at all."""

    id: str
    root: Place
    name: str
    num_frames: int

    @classmethod
    def of(cls, clip: ClipMedia, root: Place, batch: str) -> Spooled:
        """`clip` laid down in the file of its batch."""
        arrays = {name: getattr(clip, name) for name in _MEDIA if getattr(clip, name) is not None}
        staging.stage(root, spool(batch), [arrays], [])
        return cls(clip.id, root, spool(batch), clip.num_frames)

    def open(self) -> ClipMedia:
        """The clip, its arrays as pages of that file where it lies on this machine. Raises StoreError where it is gone."""
        found = staging.rows(self.root, self.name)[0][0]
        return ClipMedia(self.id, **{name: rows.mapped() for name, rows in found.items()})


_MEDIA = ("audio", "mouth", "lips", "blendshapes", "flags", "face")
_LISTS = ("clips", "asr", "vsr")


def spool(batch: str) -> str:
    """Name of the file of a batch's long clip."""
    return f"{batch}.face"


@dataclass
class Work:
    """A batch on its way through the stages; lists run over its clips, None where one failed."""

    name: str
    slots: list[Slot]
    rows: list[Row]
    receipts: list[Receipt]
    clips: list[ClipMedia | Spooled | None] = field(default_factory=list)
    asr: list[np.ndarray | None] = field(default_factory=list)
    vsr: list[np.ndarray | None] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    staged: list[dict[str, Any]] | None = None  # receipts of a batch that was staged before
    lean: bool = False  # its clips have stayed where it was sent from (`regain`)

    def __post_init__(self) -> None:
        for name in _LISTS:
            if not getattr(self, name):
                setattr(self, name, [None] * len(self.rows))

    def fail(self, i: int, stage: str, reason: str, message: str, attempts: int = 1, trace: str = "") -> None:
        """Record that clip i ends here."""
        self.receipts[i] = replace(
            self.receipts[i],
            stage=stage,
            reason=reason,
            message=message,
            worker=worker(),
            attempts=attempts,
            trace=shortened(trace),
        )
        self.clips[i] = None

    def surprise(self, i: int, stage: str, error: Exception, where: str) -> None:
        """Record that clip i ends here by an error that nobody foresaw. Raises DeviceError where it is the device's."""
        check_device(error)
        self.fail(i, stage, reason_of(error), f"{where}: {unforeseen(error)}", trace=trace(error))

    def regain(self, sent: Work) -> None:
        """Take the clips of `sent`, of which this is the answer, where they were not sent back."""
        if self.lean:
            self.clips = [clip if r.ok else None for clip, r in zip(sent.clips, self.receipts, strict=True)]
            self.lean = False

    def only(self, i: int) -> Work:
        """Clip i as a batch of its own."""
        lists: dict[str, Any] = {name: [getattr(self, name)[i]] for name in _LISTS}
        return Work(self.name, [self.slots[i]], [self.rows[i]], [self.receipts[i]], **lists)

    def take(self, i: int, one: Work) -> None:
        """Put back what became of clip i as a batch of its own."""
        for name in ("receipts", *_LISTS):
            getattr(self, name)[i] = getattr(one, name)[0]

    @contextmanager
    def timed(self, i: int) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = self.receipts[i].seconds + time.perf_counter() - start
            self.receipts[i] = replace(self.receipts[i], seconds=spent)


def reason_of(error: Exception) -> str:
    """The ledger's word for an unforeseen error: io and memory are the machine's, and tried again; error is our program's, on
    this clip."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is torch's, of a GPU
        return "memory"
    return "io" if isinstance(error, OSError) else "error"


def unforeseen(error: Exception) -> str:
    """An unforeseen error for the ledger's sentence, so that nobody takes it for the file's fault."""
    kept = " (the program's own error; its traceback is kept beside the ledger)" if reason_of(error) == "error" else ""
    return f"{type(error).__name__}: {error}{kept}"


def trace(error: BaseException) -> str:
    """Traceback of an error, for those who mend the program."""
    return "".join(traceback.format_exception(error))


def shortened(text: str) -> str:
    """The beginning and the end of a text of more than TRACE characters."""
    half = TRACE // 2
    return text if len(text) <= TRACE else f"{text[:half]}\n  ...\n{text[-half:]}"


def check_device(error: Exception) -> None:
    """Raises DeviceError where an error is a GPU's that answers no more, or says so of itself."""
    if isinstance(error, DeviceError):
        raise error
    if type(error).__name__ == "AcceleratorError" or (
        isinstance(error, RuntimeError) and str(error).lstrip().startswith(DEVICE_ERRORS)
    ):
        lines = str(error).strip().splitlines()  # those after the first are torch's advice on debugging
        raise DeviceError(f"{type(error).__name__}: {lines[0] if lines else 'without a text'}") from error


def worker() -> str:
    """Name of this process for the ledger."""
    return f"{socket.gethostname()}:{os.getpid()}"


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
                        media.local_copy(place(row.path, self.options)) as path,
                        media.local_copy(audio or path) as audio_path,
                    ):
                        self._clip(work, i, path, audio_path if audio else None)
                except media.MediaError as error:
                    work.fail(i, "decode", error.reason, str(error))
                except NoFaceError as error:
                    work.fail(i, "face", "no_face", f"{row.path}: {error}")
                except Exception as error:  # one clip's surprise must not cost its neighbours; the ledger keeps it
                    work.surprise(i, "face", error, row.path)
        return work

    def _clip(self, work: Work, i: int, path: media.Media, audio_path: media.Media | None) -> None:
        row = work.rows[i]
        if not media.probe(path, audio_path).has_audio:  # found out before the dear part
            raise media.MediaError(
                "no_audio", f"{row.audio_path or row.path} has no sound; name its sound as audio_path"
            )
        video = media.Video(path)
        track = self.tracker.track(video, whole_faces="face" in self.arrays)
        num_frames = len(track.detected)
        slot = work.slots[i]
        sound = media.sound(audio_path or path, None if audio_path else video.start_s, num_frames)
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
                clips.append(_opened(work.clips[i]))
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


def _opened(clip: ClipMedia | Spooled | None) -> ClipMedia:
    assert clip is not None
    return clip.open() if isinstance(clip, Spooled) else clip


def stage(work: Work, root: Place) -> list[dict[str, Any]]:
    """Write a finished batch under `_staging/`, atomically; its receipts as dicts, which is all that goes to the driver."""
    arrays: list[dict[str, np.ndarray]] = []
    for i, sent in enumerate(work.clips):
        asr, vsr = work.asr[i], work.vsr[i]
        if sent is None or asr is None or vsr is None:
            arrays.append({})
            continue
        clip = _opened(sent)
        arrays.append(
            {
                "mouth": clip.mouth,
                **({} if clip.face is None else {"face": clip.face}),
                "audio": clip.audio.reshape(clip.num_frames, layout.SAMPLES_PER_FRAME),
                "lips": clip.lips.astype(np.float16),
                "blendshapes": clip.blendshapes.astype(np.float16),
                "flags": clip.flags,
                "fake": frame_labels(work.rows[i], clip.num_frames),
                "asr": asr.astype(np.float16, copy=False),
                "vsr": vsr.astype(np.float16, copy=False),
            }
        )
    receipts = [asdict(receipt) for receipt in work.receipts]
    staging.stage(root, work.name, arrays, receipts)
    staging.discard(root, [spool(work.name)])
    return receipts


def staged_receipts(root: Place, name: str) -> list[dict[str, Any]] | None:
    """Receipts of a batch that is staged whole, None where it is not; a torn one is removed."""
    try:
        return staging.load(root, name)[1]
    except store.StoreError:
        return None


def frame_labels(row: Row, num_frames: int) -> np.ndarray:
    """Per-frame labels [frames] i1: 1 forged, 0 real, -1 unknown; a forged segment covers frames whose middle it holds."""
    if row.label != 1:
        return np.full(num_frames, row.label, np.int8)
    segments = [*row.audio_segments, *row.video_segments]
    if not segments:
        return np.ones(num_frames, np.int8)
    middle = (np.arange(num_frames) + 0.5) / media.FPS
    return np.any([(start <= middle) & (middle < end) for start, end in segments], axis=0).astype(np.int8)


def pack(root: Place, group: ShardGroup, names: list[str]) -> int:
    """Write the shards of `group` whole, from its staged batches `names` and the clips that were done before.

    Soft labels of these shards are empty afterwards: the second pass fills them. Returns the number of clips laid in.
    """
    writer, reader = store.Writer.open(root), store.open(root)
    slots = {slot.clip: slot for slot in group.slots}
    laid: dict[int, tuple[int, Mapping[str, Any]]] = {}  # clip row: first frame row, arrays
    for name in names:
        staged = staging.rows(root, name) if group.first < group.last else staging.load(root, name)
        for found, receipt in zip(*staged, strict=True):
            if found:
                laid[receipt["clip"]] = slots[receipt["clip"]].offset, found
    for shard in range(group.first, group.last + 1):
        kept = [clip for clip in clips_of_shard(reader.clips, shard) if clip not in laid]
        for name in writer.frame_arrays:
            if name not in layout.PROJECTIONS:
                rows = writer.blank_shard([name])[name]
                for clip in kept if name != "similarity" else ():
                    begin, length = int(reader.clips["offset"][clip]), int(reader.clips["length"][clip])
                    here, own = _inside(shard, begin, length)
                    rows[here] = reader.frames(clip, own.start, own.stop, [name])[name]
                for begin, arrays in laid.values():
                    if name in arrays:
                        here, own = _inside(shard, begin, len(arrays["flags"]))
                        rows[here] = arrays[name][own]
                writer.write_shard(shard, {name: rows})
    return len(laid)


def _inside(shard: int, begin: int, length: int) -> tuple[slice, slice]:
    """Which rows of a shard a clip has that begins at frame row `begin`, and which of its own frames they are."""
    start, end = shard * layout.SHARD, begin + length
    first = min(max(begin, start), start + layout.SHARD)
    last = max(min(end, start + layout.SHARD), first)
    return slice(first - start, last - start), slice(first - begin, last - begin)
