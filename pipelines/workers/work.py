"""A batch on its way through the stages: its clips, the outcome of each, and the errors for the ledger."""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from concord.errors import ConcordError
from pipelines.corpora.manifest import Row
from pipelines.reasons import REASONS
from pipelines.workers.plan import Slot
from store import staging
from store.place import Place
from teachers import ClipMedia

Side = Literal["asr", "vsr"]  # of a teacher
# Beginnings of errors after which a GPU no longer works in this process: cudaErrorAssert, illegal address, ECC ...
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


class DeviceError(ConcordError):
    """A device no longer works for any clip: this process must end, and another one must do its work."""

    exit_code = 1


@dataclass(frozen=True)
class Receipt:
    """A batch's report on one clip. `reason` is empty without a failure, else one of `pipelines.reasons.REASONS`;
    `trace` is the traceback of an unexpected error, `seconds` is the time of work. A staged batch keeps them as
    JSON."""

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
    notes: str = ""  # facts of the file (`pipelines.media.facts`) as sentences
    num_faces: int = -1  # the largest number seen at once; -1 if not known

    @property
    def ok(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class Span:
    """A worker's work on a batch: clips and frames that it passed on, their frames if all were as long as the longest,
    and start and end (seconds since 1970)."""

    stage: str
    worker: str
    begun: float
    ended: float
    clips: int
    frames: int
    padded: int

    @classmethod
    def of(cls, stage: str, worker: str, begun: float, work: Work) -> Span:
        """The span of a worker's work on a batch, which ends now."""
        lengths = [clip.num_frames for clip in work.clips if clip is not None]
        padded = len(lengths) * max(lengths, default=0)
        return cls(stage, worker, begun, time.time(), len(lengths), sum(lengths), padded)


@dataclass(frozen=True)
class Spooled:
    """A clip longer than a shard, which is passed between stages as a file under `_staging/`. In pipes and Ray's object
    store it would be in memory once for each worker, and one of more than two hours would not fit into Ray."""

    id: str
    root: Place
    name: str
    num_frames: int
    num_faces: int = -1

    @classmethod
    def of(cls, clip: ClipMedia, root: Place, batch: str) -> Spooled:
        """`clip`, written to the file of its batch."""
        arrays = {name: getattr(clip, name) for name in _MEDIA if getattr(clip, name) is not None}
        staging.stage(root, spool(batch), [arrays], [])
        return cls(clip.id, root, spool(batch), clip.num_frames, clip.num_faces)

    def open(self) -> ClipMedia:
        """The clip; its arrays are memory-mapped if the file is on this machine. Raises StoreError if the file is
        gone."""
        found = staging.rows(self.root, self.name)[0][0]
        return ClipMedia(self.id, num_faces=self.num_faces, **{name: rows.mapped() for name, rows in found.items()})


SECOND = ("mouth2", "lips2", "blendshapes2", "flags2")  # arrays of a clip's second face, if there is one
_MEDIA = ("audio", "mouth", "lips", "blendshapes", "flags", "face", *SECOND)


def spool(batch: str) -> str:
    """Name of the file of a batch's long clip."""
    return f"{batch}.face"


@dataclass
class Work:
    """A batch on its way through the stages. The lists have one entry for each clip, None if it failed."""

    name: str
    slots: list[Slot]
    rows: list[Row]
    receipts: list[Receipt]
    clips: list[ClipMedia | Spooled | None] = field(default_factory=list)
    asr: list[np.ndarray | None] = field(default_factory=list)
    vsr: list[np.ndarray | None] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    staged: list[Receipt] | None = None  # receipts of a batch that was already staged
    lean: bool = False  # its clips stayed with the sender (`regain`)

    def __post_init__(self) -> None:
        nothing = [None] * len(self.rows)
        self.clips, self.asr, self.vsr = (self.clips or [*nothing], self.asr or [*nothing], self.vsr or [*nothing])

    def embeddings(self, side: Side) -> list[np.ndarray | None]:
        """The output of one of the teachers, by clip."""
        return self.asr if side == "asr" else self.vsr

    def fail(self, i: int, stage: str, reason: str, message: str, attempts: int = 1, trace: str = "") -> None:
        """Record that clip i failed here, for one of `pipelines.reasons.REASONS`."""
        assert reason in REASONS, reason
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
        """Record that clip i failed here with an unexpected error. Raises DeviceError if a GPU no longer works."""
        check_device(error)
        self.fail(i, stage, reason_of(error), f"{where}: {unforeseen(error)}", trace=traceback_of(error))

    def regain(self, sent: Work) -> None:
        """Take the clips from `sent`, to which this is the answer, if they were not sent back."""
        if self.lean:
            self.clips = [clip if r.ok else None for clip, r in zip(sent.clips, self.receipts, strict=True)]
            self.lean = False

    def only(self, i: int) -> Work:
        """Clip i as a separate batch."""
        own = [self.clips[i]], [self.asr[i]], [self.vsr[i]]
        return Work(self.name, [self.slots[i]], [self.rows[i]], [self.receipts[i]], *own)

    def take(self, i: int, one: Work) -> None:
        """Put back the result of clip i, which ran as a separate batch."""
        self.receipts[i], self.clips[i] = one.receipts[0], one.clips[0]
        self.asr[i], self.vsr[i] = one.asr[0], one.vsr[0]

    @contextmanager
    def timed(self, i: int) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = self.receipts[i].seconds + time.perf_counter() - start
            self.receipts[i] = replace(self.receipts[i], seconds=spent)


def reason_of(error: Exception) -> str:
    """The reason for an unexpected error: io and memory are faults of the machine and tried again; error is this
    program's own."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is torch's, for a GPU
        return "memory"
    return "io" if isinstance(error, OSError) else "error"


def unforeseen(error: Exception) -> str:
    """An unexpected error as a sentence for the ledger, worded so that the file is not blamed for it."""
    kept = " (the program's own error; its traceback is kept beside the ledger)" if reason_of(error) == "error" else ""
    return f"{type(error).__name__}: {error}{kept}"


def traceback_of(error: BaseException) -> str:
    """Traceback of an error, for those who fix the program."""
    return "".join(traceback.format_exception(error))


def shortened(text: str) -> str:
    """The beginning and the end of a text of more than TRACE characters."""
    half = TRACE // 2
    return text if len(text) <= TRACE else f"{text[:half]}\n  ...\n{text[-half:]}"


def check_device(error: Exception) -> None:
    """Raises DeviceError if an error comes from a GPU that no longer works."""
    if isinstance(error, DeviceError):
        raise error
    if type(error).__name__ == "AcceleratorError" or (
        isinstance(error, RuntimeError) and str(error).lstrip().startswith(DEVICE_ERRORS)
    ):
        lines = str(error).strip().splitlines()  # those after the first are torch's advice on debugging
        raise DeviceError(f"{type(error).__name__}: {lines[0] if lines else 'no message'}") from error


def worker() -> str:
    """Name of this process for the ledger."""
    return f"{socket.gethostname()}:{os.getpid()}"


def opened(clip: ClipMedia | Spooled | None) -> ClipMedia:
    assert clip is not None
    return clip.open() if isinstance(clip, Spooled) else clip
