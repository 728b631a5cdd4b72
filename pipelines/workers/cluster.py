"""Ray: connecting, the streaming chain of stages, functions spread over shards, and the tally behind progress lines."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, TypeVarTuple

from pipelines.workers.address import CLIENT, NoCluster, missing, reach, resolve
from pipelines.workers.chain import LAST, Build, Chain, Staged, Step, Tally
from pipelines.workers.chain import log as chain_log
from pipelines.workers.threads import cores
from pipelines.workers.work import DeviceError, Work, check_device
from teachers.quiet import quiet

log = logging.getLogger(__name__)

T = TypeVar("T")
Job = TypeVarTuple("Job")  # arguments of a distributed function

OBJECT_STORE_BYTES = 2 * 1024**3  # for a local Ray: batches in flight take about 10 MB each
FACE_CPUS = 0.7  # one face worker per core; the rest of Ray's count is for the stages that need little
SMALL_CPUS = 0.05
IN_FLIGHT = 4  # shard jobs at once, each holding one shard in memory
MOST_FACE_WORKERS = 1024
DOCTOR = "python -m pipelines.doctor checks the machine"
RETRIES = 20  # of a shard job after its worker or node died, and of starting a worker


def connect(address: str | None) -> None:
    """Join the cluster at `address` (or RAY_ADDRESS), or start a local Ray that ends with this process; does so only
    once. Raises NoCluster within seconds if there is none."""
    import ray

    if ray.is_initialized():
        return
    reach(address)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # otherwise its C++ side writes to the terminal
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # raised by its own statistics when a node dies
    on_terminate = signal.getsignal(signal.SIGTERM)
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    found = resolve(address)  # Ray itself would join any Ray that runs on this machine
    if not found.startswith(CLIENT):  # a client's workers do not get its current folder
        options["job_config"] = _job()
    if found == "local":
        options |= {"num_cpus": cores(), "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        log.info("starting Ray on this machine (%d cores)", cores())
    begun = time.monotonic()
    try:
        with quiet():
            ray.init(address=found, **options)
    except Exception as error:  # also bare ones, for a node that did not start in time
        if found == "local":
            raise _not_started(error, time.monotonic() - begun) from error
        if not isinstance(error, OSError | RuntimeError | ValueError | ray.exceptions.RayError):
            raise
        raise missing(address, error) from error
    except SystemExit as stop:  # by Ray's own handler, which ends with the bare number of the signal
        raise SystemExit(128 + signal.SIGTERM if stop.code == signal.SIGTERM else stop.code) from None
    finally:
        signal.signal(signal.SIGTERM, on_terminate)
    _quiet_data()


def _job() -> Any:
    """Workers import from where this process does: Ray would try the current folder first, with a store.py of the user's."""
    from ray.job_config import JobConfig

    class Where(JobConfig):
        def _serialize(self) -> str:
            here = {os.path.abspath(folder) for folder in sys.path}  # "" is the current one
            self._py_driver_sys_path = [folder for folder in self._py_driver_sys_path if folder in here]
            return super()._serialize()

    return Where()


def _not_started(error: Exception, seconds: float) -> NoCluster:
    """The error of a Ray that this process could not start for itself."""
    if "timed out" in str(error).lower():
        says = f"this machine was too busy to start Ray within {seconds:.0f} s"
        return NoCluster(says, "run the same command again when it has less to do")
    return NoCluster(f"Ray could not be started on this machine: {' '.join(str(error).split())[:300]}", DOCTOR)


def _quiet_data() -> None:
    """Ray Data without progress bars and logs in this process; workers that die while they start are replaced."""
    import ray

    data = ray.data.DataContext.get_current()
    data.enable_progress_bars = False
    data.print_on_execution_start = False
    data.max_consecutive_actor_init_deaths = RETRIES
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # it also logs the errors that it raises


def tally() -> Any:
    """A new `Tally` on the driver's node, so that it does not die with another node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(Tally)
    return actor.options(num_cpus=0, scheduling_strategy=here).remote()


def counts(tally: Any) -> Mapping[str, Mapping[str, float]]:
    """What a tally has counted, by stage."""
    import ray

    found: Mapping[str, Mapping[str, float]] = ray.get(tally.read.remote(), timeout=5)
    return found


class _Stage:
    """A `Step` as Ray Data calls it: a row in, a row out, with the batch pickled inside."""

    def __init__(self, name: str, chain: Chain, tally: Any, build: Build):
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")  # goes to Ray's log of this worker
        chain_log.setLevel(logging.DEBUG)
        self.step = Step(name, chain, build, tally.add.remote)

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        done = self.step(pickle.loads(row["work"]))
        return {"staged" if self.step.name == LAST else "work": pickle.dumps(done, protocol=5)}


class _Streamer:
    """`stream` in a process of the cluster, for a driver behind ray://, in which Ray Data does not run."""

    def __init__(self, work: Sequence[Work], chain: Chain, tally: Any) -> None:
        _quiet_data()
        self.staged = stream(work, chain, tally)

    def next(self) -> Staged | None:
        """The next staged batch; None at the end."""
        return next(self.staged, None)


def stream(work: Sequence[Work], chain: Chain, tally: Any) -> Iterator[Staged]:
    """Run batches through face, asr, vsr and staging; yields each when it is staged, in any order.

    Ray Data streams: memory holds the batches in flight, not the corpus. Pools grow and shrink between their limits
    with the waiting work and with the cluster's nodes. If a worker dies, another one repeats its batches. Raises
    OSError or StoreError if a batch cannot be staged.
    """
    import ray
    from ray.data import ActorPoolStrategy

    client: Any = ray.util.client.ray  # without types
    if client.is_connected():
        there: Any = ray.remote(num_cpus=0)(_Streamer)
        streamer = there.remote(work, chain, tally)
        while (staged := ray.get(streamer.next.remote())) is not None:
            yield staged
        return
    gpus, cpus = (resources().get(kind, 0) for kind in ("GPU", "CPU"))
    pools = chain.pools
    share = min(1.0, gpus / (pools.asr[1] + pools.vsr[1])) if gpus else 0.0
    device = "cuda" if gpus else "cpu"
    data: Any = ray.data.from_items(
        [{"work": pickle.dumps(w, protocol=5)} for w in work], override_num_blocks=len(work)
    )
    builds = chain.builds(device)
    limits = {"face": pools.face or (max(1, int(cpus)), MOST_FACE_WORKERS), "asr": pools.asr, "vsr": pools.vsr}
    for name, (low, high) in limits.items():
        data = data.map(
            _Stage,
            fn_constructor_args=(name, chain, tally, builds[name]),
            compute=ActorPoolStrategy(min_size=min(low, len(work)), max_size=min(high, len(work))),
            num_cpus=FACE_CPUS if name == "face" else SMALL_CPUS,
            num_gpus=0 if name == "face" else share,
        )
    for row in data.iter_rows():
        answer = pickle.loads(row["staged"])
        if isinstance(answer, Exception):
            raise answer
        yield answer


def lost(error: BaseException) -> bool:
    """Whether an error comes from the infrastructure (a worker, a node or an object is gone), so that the work can be
    repeated, and not from this project's code there."""
    import ray

    if isinstance(error, ray.exceptions.RayTaskError):  # a task may have failed because another task's result was lost
        error = error.cause or error
    return isinstance(error, ray.exceptions.RayError) and not isinstance(error, ray.exceptions.RayTaskError)


def resources() -> dict[str, float]:
    """The cluster's resources: CPU, GPU and more, by Ray's names."""
    import ray

    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def spread(function: Callable[[*Job], T], jobs: Sequence[tuple[*Job]], gpu: bool = False) -> Iterator[T]:
    """A `Spread` over the cluster, a few jobs at a time."""
    import ray

    gpus = 1 if gpu and resources().get("GPU") else 0
    # Ray ends a worker after each task with a GPU, so a worker whose device failed gets no other task.
    again: Any = [DeviceError]
    options: dict[str, Any] = {"max_retries": RETRIES, "retry_exceptions": again}
    remote: Any = ray.remote(num_cpus=1, num_gpus=gpus, **options)(_on_device)
    waiting = [remote.remote(function, *job) for job in jobs[:IN_FLIGHT]]
    for k in range(len(jobs)):
        answer = ray.get(waiting.pop(0))
        if k + IN_FLIGHT < len(jobs):
            waiting.append(remote.remote(function, *jobs[k + IN_FLIGHT]))
        yield answer


def begin(function: Callable[[*Job], T], *job: *Job) -> Any:
    """Start function(*job), which needs little of the processor, and return its ticket."""
    import ray

    remote: Any = ray.remote(num_cpus=SMALL_CPUS, max_retries=RETRIES)(function)
    return remote.remote(*job)


def ended(tickets: Sequence[Any], wait: bool) -> Any | None:
    """One of the tickets whose work has ended, waiting for it if `wait`; None if there is none."""
    import ray

    ready, _ = ray.wait(list(tickets), num_returns=1, timeout=None if wait else 0)
    return ready[0] if ready else None


def answer(ticket: Any) -> Any:
    """The result of a ticket's work. Raises its error."""
    import ray

    return ray.get(ticket)


def _on_device(function: Callable[[*Job], T], *job: *Job) -> T:
    """function(*job). Raises DeviceError if a GPU failed, which is not the job's fault."""
    try:
        return function(*job)
    except Exception as error:
        check_device(error)
        raise
