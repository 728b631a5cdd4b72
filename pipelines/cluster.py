"""Ray: connecting, the streaming chain of stages, functions spread over shards, and the tally behind progress lines."""

from __future__ import annotations

import logging
import os
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pipelines import stages

T = TypeVar("T")

OBJECT_STORE_BYTES = 2 * 1024**3  # of a local Ray: batches on their way take some 10 MB each
FACE_CPUS = 0.7  # one face worker a core, with room left in Ray's books for the stages that hardly need one
SMALL_CPUS = 0.05
IN_FLIGHT = 4  # shard jobs at once, each holding one shard in memory


class Spread(Protocol):
    """Runs function(*job) for each of `jobs`, somewhere, on a GPU if `gpu` and there is one; answers in the jobs' order."""

    def __call__(
        self, function: Callable[..., T], jobs: Sequence[tuple[Any, ...]], gpu: bool = False
    ) -> Iterable[T]: ...


@dataclass(frozen=True)
class Pools:
    """Workers a stage: (min, max) teacher actors; face workers take one CPU core each, as many as there are."""

    asr: tuple[int, int] = (1, 1)
    vsr: tuple[int, int] = (1, 1)


def connect(address: str | None) -> None:
    """Join the cluster at `address` (or RAY_ADDRESS), or start a local Ray that ends with this process; once."""
    import ray

    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its C++ side writes to the terminal, errors or not
    on_terminate = signal.getsignal(signal.SIGTERM)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if not (address or os.environ.get("RAY_ADDRESS")):
        quiet |= {"num_cpus": cores(), "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    with _silence():
        ray.init(address=address or None, **quiet)
    signal.signal(signal.SIGTERM, on_terminate)  # Ray puts its own there
    data = ray.data.DataContext.get_current()
    data.enable_progress_bars = False
    data.print_on_execution_start = False
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def _silence() -> Iterator[None]:
    """Keeps remarks that Ray's C++ side makes at its start off standard error; errors come as exceptions."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


class Tally:
    """Counts that workers report and the driver reads; one Ray actor."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, float]] = {}

    def add(self, stage: str, clips: int, frames: int, seconds: float) -> None:
        """Work done by one call of a stage; seconds are busy seconds of one worker."""
        now = self.counts.setdefault(stage, {"clips": 0, "frames": 0, "seconds": 0.0})
        now["clips"] += clips
        now["frames"] += frames
        now["seconds"] += seconds

    def read(self) -> dict[str, dict[str, float]]:
        """Counts by stage."""
        return self.counts


class _Stage:
    """A stage of `pipelines.stages` as Ray Data calls it: a row in, a row out, the batch pickled in between."""

    def __init__(self, name: str, tally: Any, build: Callable[[], Callable[[stages.Work], stages.Work]]) -> None:
        self.name, self.tally, self.call = name, tally, build()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import time

        start = time.perf_counter()
        work = self.call(pickle.loads(row["work"]))
        done = [clip for clip in work.clips if clip is not None]
        seconds = time.perf_counter() - start
        self.tally.add.remote(self.name, len(done), sum(clip.num_frames for clip in done), seconds)
        return {"work": pickle.dumps(work, protocol=5)}


def stream(
    work: Sequence[stages.Work], root: Path, names: dict[str, str], pools: Pools, tally: Any
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Run batches through face, asr, vsr and staging; yields (batch name, receipts) as they finish, in any order.

    `names` are the teachers' by side. Ray Data streams: memory holds the batches in flight, not the corpus.
    """
    import ray
    from ray.data import ActorPoolStrategy

    gpus = ray.cluster_resources().get("GPU", 0)
    share = min(1.0, gpus / (pools.asr[1] + pools.vsr[1])) if gpus else 0.0
    device = "cuda" if gpus else "cpu"
    face_workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
    data: Any = ray.data.from_items(
        [{"work": pickle.dumps(w, protocol=5)} for w in work], override_num_blocks=len(work)
    )
    data = data.map(
        _Stage,
        fn_constructor_args=("face", tally, stages.FaceStage),
        compute=ActorPoolStrategy(size=min(face_workers, len(work))),
        num_cpus=FACE_CPUS,
    )
    for side, (low, high) in (("asr", pools.asr), ("vsr", pools.vsr)):
        data = data.map(
            _Stage,
            fn_constructor_args=(side, tally, _TeacherOf(names[side], side, device)),
            compute=ActorPoolStrategy(min_size=low, max_size=high),
            num_cpus=SMALL_CPUS,
            num_gpus=share,
        )
    data = data.map(_Staging(root), num_cpus=SMALL_CPUS)
    for row in data.iter_rows():
        yield row["batch"], pickle.loads(row["receipts"])


@dataclass(frozen=True)
class _TeacherOf:
    """Builds a teacher stage on the worker, where its weights are loaded once."""

    name: str
    side: str
    device: str

    def __call__(self) -> stages.TeacherStage:
        return stages.TeacherStage(self.name, self.side, self.device)


@dataclass(frozen=True)
class _Staging:
    """Stages a finished batch and passes on its receipts alone."""

    root: Path

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        work: stages.Work = pickle.loads(row["work"])
        return {"batch": work.name, "receipts": pickle.dumps(stages.stage(work, self.root))}


def spread(function: Callable[..., T], jobs: Sequence[tuple[Any, ...]], gpu: bool = False) -> Iterator[T]:
    """A `Spread` over the cluster, a few jobs at a time."""
    import ray

    remote = ray.remote(num_cpus=1, num_gpus=1 if gpu and ray.cluster_resources().get("GPU") else 0)(function)
    waiting = [remote.remote(*job) for job in jobs[:IN_FLIGHT]]
    for k in range(len(jobs)):
        answer = ray.get(waiting.pop(0))
        if k + IN_FLIGHT < len(jobs):
            waiting.append(remote.remote(*jobs[k + IN_FLIGHT]))
        yield answer
