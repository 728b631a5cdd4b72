"""The chain of stages that each batch passes through, and one of its stages with the child process that does its work.

Batches go through it on Ray's workers (`pipelines.workers.cluster`) or on this machine alone (`pipelines.workers.alone`).
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar, TypeVarTuple

from pipelines.workers import isolation, stages
from pipelines.workers.pack import stage, staged_receipts
from pipelines.workers.work import Receipt, Span, Work, worker
from store.layout import StoreError
from store.place import Place

log = logging.getLogger(__name__)

T = TypeVar("T")
Job = TypeVarTuple("Job")  # arguments of a distributed function

NUMBERS = itertools.count()  # of this process's workers
LAST = "vsr"  # the stage that writes batches to staging
Build = Callable[[], Callable[[Work], Work]]


class Spread(Protocol):
    """Runs function(*job) for each of `jobs` in some process, on a GPU if `gpu` and there is one; results in the jobs'
    order."""

    def __call__(
        self, function: Callable[[*Job], T], jobs: Sequence[tuple[*Job]], gpu: bool = False
    ) -> Iterable[T]: ...


@dataclass(frozen=True)
class Pools:
    """Workers of each stage, (min, max). None for face workers: one for each CPU core, also those added later."""

    asr: tuple[int, int] = (1, 1)
    vsr: tuple[int, int] = (1, 1)
    face: tuple[int, int] | None = None


@dataclass(frozen=True)
class Chain:
    """Settings of all workers of a run: the store, the face backend and the teachers by stage, the optional arrays of
    the store, the pools, and the limits for clips that crash or hang a worker (`pipelines.workers.isolation`)."""

    root: Place
    names: dict[str, str]
    arrays: tuple[str, ...]
    pools: Pools
    clip_timeout: float | None
    attempts: int
    mouth_crops: bool = False  # clips are mouth crops already

    def builds(self, device: str) -> dict[str, Build]:
        """What a child process builds for each stage, in the order of the stages; teachers run on `device`."""
        face = (self.names["face"], self.root.options, self.arrays, self.root, self.mouth_crops)
        return {
            "face": partial(stages.FaceStage, *face),
            "asr": partial(stages.TeacherStage, self.names["asr"], "asr", device),
            "vsr": partial(stages.TeacherStage, self.names["vsr"], "vsr", device),
        }


@dataclass(frozen=True)
class Staged:
    """A batch in `_staging/`: its name, its clips' receipts, and the work on it in this run."""

    name: str
    receipts: list[Receipt]
    spans: list[Span]


class Step:
    """A stage of `pipelines.workers.stages` in a child process: a batch in, the batch out.

    A batch that was already staged, by a run or a worker that died, passes unchanged. The last stage writes the batch to
    `_staging/` and passes on only its receipts: separate tasks for these writes would starve on a machine full of
    workers, with hundreds of finished clips in memory until the face workers were done.
    """

    def __init__(self, name: str, chain: Chain, build: Build, count: Callable[[str, int, int], object]) -> None:
        """Starts the child. `count` gets the stage's name, clips and frames of every call. Raises as `isolation.Child`."""
        self.name, self.chain, self.count = name, chain, count
        self.worker = f"{worker()}/{next(NUMBERS)}"  # without Ray many are in one process
        self.child: isolation.Child[Work, Work] = isolation.Child(build)

    def __call__(self, work: Work) -> Work | Staged | OSError | StoreError:
        """The batch after the stage; after the last one Staged, or the error if it cannot be staged. That is returned,
        because Ray treats an error raised by a worker as the loss of the worker."""
        if self.name == "face":
            work.staged = staged_receipts(self.chain.root, work.name)
        if work.staged is None:
            begun, chain = time.time(), self.chain
            log.debug("%s %s: begins %d clips", self.name, work.name, sum(receipt.ok for receipt in work.receipts))
            work = isolation.run(
                self.child, work, self.name, chain.clip_timeout, chain.attempts, apart=self.name == "face"
            )
            span = Span.of(self.name, self.worker, begun, work)
            work.spans.append(span)
            log.debug("%s %s: did %d clips in %.2f s", self.name, work.name, span.clips, span.ended - begun)
            self.count(self.name, span.clips, span.frames)
        if self.name != LAST:
            return work
        try:
            receipts = stage(work, self.chain.root) if work.staged is None else work.staged
        except (OSError, StoreError) as error:
            return error
        return Staged(work.name, receipts, work.spans)

    def close(self) -> None:
        """End the child."""
        self.child.close()


class Tally:
    """Clips and frames that each stage has passed on, for progress lines."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, float]] = {}

    def add(self, stage: str, clips: int, frames: int) -> None:
        """Add the work of one call of a stage. Two threads at once may lose one of theirs, which display can bear."""
        now = self.counts.setdefault(stage, {"clips": 0, "frames": 0})
        now["clips"] += clips
        now["frames"] += frames

    def read(self) -> dict[str, dict[str, float]]:
        """Counts by stage."""
        return self.counts


class Hands(Protocol):
    """What does the work of a run: the module `pipelines.workers.cluster` or `pipelines.workers.alone`."""

    def spread(self, function: Callable[[*Job], T], jobs: Sequence[tuple[*Job]], gpu: bool = False) -> Iterator[T]:
        """A `Spread`."""

    def stream(self, work: Sequence[Work], chain: Chain, tally: Any) -> Iterator[Staged]:
        """Batches through all stages; each is yielded when it is staged."""

    def tally(self) -> Any:
        """A `Tally` where the workers reach it."""

    def counts(self, tally: Any) -> Mapping[str, Mapping[str, float]]:
        """What it has counted."""

    def lost(self, error: BaseException) -> bool:
        """Whether an error was the loss of a worker, so that the work can be repeated."""

    def begin(self, function: Callable[[*Job], T], *job: *Job) -> Any:
        """Start a job that needs little of the processor; its ticket."""

    def ended(self, tickets: Sequence[Any], wait: bool) -> Any | None:
        """One ticket whose job has ended."""

    def answer(self, ticket: Any) -> Any:
        """The result of its job."""
