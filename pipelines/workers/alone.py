"""This machine alone, without Ray: the same work as `pipelines.workers.cluster` does, with the same values, in processes of
the driver's own.

Starting Ray and its workers takes longer than a few hundred clips are worth. Each worker here is a thread of the driver
with one child process (`pipelines.workers.isolation`), which ends with it. A worker that dies for a fault of the machine is
not replaced, as Ray would: the run ends, and the next one continues.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from queue import Queue
from typing import Any, TypeVar, TypeVarTuple

from pipelines.workers.chain import Chain, Staged, Step, Tally
from pipelines.workers.isolation import Child
from pipelines.workers.threads import THREADS, cores
from pipelines.workers.work import Work

T = TypeVar("T")
Job = TypeVarTuple("Job")

WAITING = 4  # batches between two stages, so that memory does not grow with the corpus


def stream(work: Sequence[Work], chain: Chain, tally: Tally) -> Iterator[Staged]:
    """Run batches through face, asr, vsr and staging; yields each when it is staged, in any order. Raises OSError or
    StoreError if a batch cannot be staged, and the error of a worker that cannot start."""
    done: Queue[Any] = Queue()
    ways: list[tuple[Queue[Any], int]] = []  # into each stage, and how many workers read there
    for name, limits in {
        "face": chain.pools.face or (1, cores()),
        "asr": chain.pools.asr,
        "vsr": chain.pools.vsr,
    }.items():
        workers = min(limits[1], len(work))
        ways.append((Queue(max(WAITING, workers) if name != "face" else 0), workers))
    for batch in work:
        ways[0][0].put(batch)
    following = [*(way for way, _ in ways[1:]), done]
    for (name, build), (come, workers), go in zip(chain.builds("cpu").items(), ways, following, strict=True):
        for _ in range(workers):
            _work(partial(_serve, partial(Step, name, chain, build, tally.add), come, go), done)
    try:
        for _ in work:
            staged = done.get()
            if isinstance(staged, BaseException):
                raise staged
            yield staged
    finally:
        for way, workers in ways:
            _end(way, workers)


def _serve(start: Callable[[], Step], come: Queue[Any], go: Queue[Any]) -> None:
    """Pass batches from one queue to the next through a step, until None comes."""
    step = start()
    try:
        while (batch := come.get()) is not None:
            go.put(step(batch))
    finally:
        step.close()


def _end(way: Queue[Any], workers: int) -> None:
    """Let the workers that read from a queue end: what is in it is dropped, and nobody waits for room in it."""
    with way.mutex:
        way.queue.clear()
        way.maxsize = sys.maxsize
        way.not_full.notify_all()
    for _ in range(workers):
        way.put(None)


def _work(task: Callable[[], None], done: Queue[Any]) -> None:
    """Run a task in a thread that does not keep the process alive; its error goes to `done`."""

    def run() -> None:
        try:
            task()
        except BaseException as error:
            done.put(error)

    threading.Thread(target=run, daemon=True).start()


def tally() -> Tally:
    """A new `Tally`."""
    return Tally()


def counts(tally: Tally) -> Mapping[str, Mapping[str, float]]:
    """What a tally has counted, by stage."""
    return tally.read()


def lost(error: BaseException) -> bool:
    """Whether the work can be repeated after this error: never, nobody replaces a worker here."""
    return False


def spread(function: Callable[[*Job], T], jobs: Sequence[tuple[*Job]], gpu: bool = False) -> Iterator[T]:
    """A `Spread` over as many processes as there are cores."""
    todo: Queue[tuple[int, tuple[*Job]] | None] = Queue()
    done: Queue[Any] = Queue()
    workers = min(cores(), len(jobs))
    for numbered in enumerate(jobs):
        todo.put(numbered)
    for _ in range(workers):
        todo.put(None)

    def serve() -> None:
        child: Child[tuple[Callable[[*Job], T], tuple[*Job]], T] = Child(_caller)
        try:
            while (one := todo.get()) is not None:
                done.put((one[0], child((function, one[1]), None)))
        finally:
            child.close()

    for _ in range(workers):
        _work(serve, done)
    early: dict[int, T] = {}
    for k in range(len(jobs)):
        while k not in early:
            answer = done.get()
            if isinstance(answer, BaseException):
                raise answer
            early[answer[0]] = answer[1]
        yield early.pop(k)


def _caller() -> Callable[[tuple[Callable[..., T], tuple[Any, ...]]], T]:
    """What a child of `spread` builds: the call of a function with a job."""
    return _apply


def _apply(asked: tuple[Callable[..., T], tuple[Any, ...]]) -> T:
    return call(asked[0], *asked[1])


def begin(function: Callable[[*Job], T], *job: *Job) -> Any:
    """The ticket of function(*job), which is done at once."""
    return _Ticket(call(function, *job))


def ended(tickets: Sequence[Any], wait: bool) -> Any | None:
    """One of the tickets, None if there is none: the work of all has ended."""
    return next(iter(tickets), None)


def answer(ticket: Any) -> Any:
    """The result of a ticket's work."""
    return ticket.value


class _Ticket:
    """The result of some work."""

    def __init__(self, value: object) -> None:
        self.value = value


def call(function: Callable[[*Job], T], *job: *Job) -> T:
    """function(*job) in this process, in which numerical libraries use one thread, as in every worker: so the result has
    the same bits."""
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else THREADS
    try:
        with threadpool_limits(THREADS):
            if torch:
                torch.set_num_threads(THREADS)
            return function(*job)
    finally:
        if torch:
            torch.set_num_threads(before)
