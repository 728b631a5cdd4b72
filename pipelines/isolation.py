"""A child process that does a worker's dangerous work: a file that crashes or hangs a decoder costs its own clip, no more.

A stage lives in the child, which is started anew after each crash or time-out; the worker around it only passes batches on and
counts. So a worker that dies is the infrastructure's doing, and its batch is simply done again, while a child that dies on a
clip `attempts` times has found poison. A batch that kills the child as often is run clip by clip, which finds the clips to
leave out, and then whole again without them: every other clip keeps the bits that it has in a calm run.

The child is started by exec, never by fork, since zarr, torch and Ray have threads. It dies with its parent.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from pipelines.media import FPS
from pipelines.stages import INFRASTRUCTURE, Work

START_S = 1800.0  # a child may have to wait for weights that another process downloads
STARTS = 3  # tries; a child may be killed while it loads weights
BASE_S = 300.0  # without a time limit of the user's: what any clip may take in one stage,
TIMES = 4.0  # and on top this many times what its header promises
_PR_SET_PDEATHSIG = 1
_MAIN = "import sys; sys.path[:] = {path!r}; from pipelines.isolation import _serve; _serve({fd}, {parent})"


class ChildLost(Exception):
    """The child died or took too long and was stopped; `reason` is crash, killed or timeout."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        return self.args[1]


class Child:
    """A process that calls `build()` once, and what that gives with every value it is sent; all of them must pickle."""

    def __init__(self, build: Callable[[], Callable[[Any], Any]]) -> None:
        """Starts the process and waits until it is ready. Raises what `build` raised there, or ChildLost."""
        self._build = build
        self._process: subprocess.Popen[bytes] | None = None
        for left in reversed(range(STARTS)):
            try:
                return self._start()
            except ChildLost:
                if not left:
                    raise

    def __call__(self, value: Any, limit_s: float) -> Any:
        """The answer to `value`. Raises what the callable raised, or ChildLost; either way the next call finds a child."""
        if self._process is None:
            self._start()
        return self._ask(value, limit_s)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._connection.close()
            self._process = None

    def __del__(self) -> None:
        self.close()

    def _start(self) -> None:
        self._connection, theirs = Pipe()
        code = _MAIN.format(path=sys.path, fd=theirs.fileno(), parent=os.getpid())
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        try:
            self._ask(self._build, START_S)
        except BaseException:
            self.close()
            raise

    def _ask(self, value: Any, limit_s: float) -> Any:
        try:
            self._connection.send_bytes(pickle.dumps(value, protocol=5))
            if not self._connection.poll(limit_s):
                self.close()
                raise ChildLost("timeout", f"its worker took longer than {limit_s:g} s and was stopped")
            raised, answer = pickle.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionError):
            raise self._lost() from None
        if raised:
            raise answer
        return answer

    def _lost(self) -> ChildLost:
        assert self._process is not None
        code = self._process.wait()
        self.close()
        if code == -signal.SIGKILL:
            return ChildLost("killed", "its worker was killed from outside, or for want of memory")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return ChildLost("crash", f"its worker crashed ({how})")


def run(child: Child, work: Work, stage: str, clip_timeout: float | None, attempts: int, apart: bool) -> Work:
    """`work` after the stage in `child`; clips that crash or hang it `attempts` times have failed with the reason.

    `apart`: the stage looks at each clip alone, so they are sent one by one from the start.
    """
    live = [i for i, receipt in enumerate(work.receipts) if receipt.ok]
    if not live:
        return work
    if not apart:
        whole = _try(child, work, clip_timeout, attempts)
        if isinstance(whole, Work):
            return whole
    for i in live:
        one = _try(child, work.only(i), clip_timeout, attempts)
        if isinstance(one, ChildLost):
            tries = f"{attempts} times" if attempts > 1 else "once"
            path = work.rows[i].path
            work.fail(i, stage, one.reason, f"{path}: {one}, tried {tries}; check the file, or leave it out", attempts)
        elif apart:
            work.take(i, one)
    if apart:
        return work
    whole = _try(child, work, clip_timeout, attempts)
    if isinstance(whole, Work):
        return whole
    for i, receipt in enumerate(work.receipts):  # none of them alone, all of them together
        if receipt.ok:
            work.fail(i, stage, whole.reason, f"{work.rows[i].path}: {whole} when given with its neighbours", attempts)
    return work


def _try(child: Child, work: Work, clip_timeout: float | None, attempts: int) -> Work | ChildLost:
    limit = sum(
        limit_s(slot.frames, clip_timeout)
        for slot, receipt in zip(work.slots, work.receipts, strict=True)
        if receipt.ok
    )
    last: Work | ChildLost | None = None
    for attempt in range(1, attempts + 1):
        try:
            done = child(work, limit)
        except ChildLost as error:
            last = error
            continue
        if len(done.rows) > 1 or done.receipts[0].reason not in INFRASTRUCTURE:
            return done
        done.receipts[0] = replace(done.receipts[0], attempts=attempt)
        last = done
    assert last is not None
    return last


def limit_s(frames: int, clip_timeout: float | None) -> float:
    """Seconds that a stage may take on a clip whose header promises `frames`, before it is taken for hung."""
    return clip_timeout if clip_timeout is not None else BASE_S + TIMES * frames / FPS


def _serve(fd: int, parent: int) -> None:
    """The child's life: build, then answer until the other end closes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before it could be asked to take us with it
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    faulthandler.enable()  # a crash leaves its place in the worker's log
    connection = Connection(fd)
    call = None
    while True:
        try:
            value = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            if call is None:
                call, answer = value(), None
            else:
                answer = call(value)
            message = pickle.dumps((False, answer), protocol=5)
        except Exception as error:
            message = _pickled(error)
        connection.send_bytes(message)


def _pickled(error: Exception) -> bytes:
    try:
        message = pickle.dumps((True, error), protocol=5)
        pickle.loads(message)
        return message
    except Exception:  # an error of somebody's library need not pickle; its text does
        return pickle.dumps((True, RuntimeError(f"{type(error).__name__}: {error}")), protocol=5)
