"""A child process for a worker's dangerous work: a file that crashes or hangs a decoder loses only its own clip.

A stage runs in the child, which is restarted after each crash or timeout; the worker around it only passes batches on
and counts. So the death of a worker is a fault of the infrastructure, and its batch is simply repeated, while a clip on
which the child dies `attempts` times is at fault itself. A batch that kills the child that often is run clip by clip,
to find the clips to leave out, and then as a whole without them, so that all other clips get the same bits as in an
undisturbed run. A child whose device is broken (`work.DeviceError`) is restarted like one that died; otherwise all
later clips would seem to be at fault.

The child is started by exec, never by fork, because zarr, torch and Ray have threads. It dies with its parent. Arrays
are sent through the pipe without a second copy, those of long clips as their file (`concord.arrays.large`). Errors
include their traceback, and a crash what the child wrote last: the Python lines where it happened, and a library's last
words. Once it is built, a child writes nothing to the terminal.
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import os
import pickle
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar, cast

import numpy as np

from concord.arrays import large
from concord.errors import ConcordError
from pipelines.reasons import INFRASTRUCTURE
from pipelines.workers.threads import ONE_EACH
from pipelines.workers.work import DeviceError, Work
from store.layout import FPS

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

START_S = 1800.0  # a child may have to wait for weights that another process downloads
STARTS = 3  # attempts; a child may be killed while it loads weights
BASE_S = 300.0  # without --clip-timeout: seconds that any clip may take in one stage,
TIMES = 4.0  # plus this many times the length in its header
_PR_SET_PDEATHSIG = 1
DUMP_BYTES = 16 << 10  # of the dump of a crashed child
_MAIN = (
    "import sys; sys.path[:] = {path!r}; from pipelines.workers.isolation import _serve; _serve({fd}, {dump}, {parent})"
)


class ChildLost(ConcordError):
    """The child died or was stopped; `reason` is crash, killed, timeout or device, `trace` its Python lines, if known."""

    exit_code = 1

    def __init__(self, reason: str, message: str, trace: str = "") -> None:
        super().__init__(reason, message, trace)
        self.reason, self.trace = reason, trace

    def __str__(self) -> str:
        return str(self.args[1])


class Elsewhere(ConcordError):
    """The cause of an error that was raised in a child: its traceback there, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Child(Generic[Asked, Answer]):
    """A process that calls `build()` once, and then calls its result with every value that is sent; everything must
    pickle."""

    def __init__(self, build: Callable[[], Callable[[Asked], Answer]]) -> None:
        """Starts the process and waits until it is ready. Raises the error of `build`, or ChildLost."""
        self._build = build
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        for left in reversed(range(STARTS)):
            try:
                return self._start()
            except ChildLost:
                if not left or self._stopped:
                    raise

    def __call__(self, value: Asked, limit_s: float | None) -> Answer:
        """The answer to `value`, within `limit_s` if that is given. Raises the callable's error, or ChildLost; in both
        cases the next call has a child again."""
        if self._process is None:
            self._start()
        return cast(Answer, self._ask(value, limit_s))

    def stop(self) -> None:
        """End the process for good; a thread that waits for its answer gets ChildLost. That thread closes the files, whose
        numbers could else be those of other files while it still reads."""
        self._stopped = True
        if (process := self._process) is not None:
            process.kill()

    def close(self) -> None:
        """End the process, whatever it is doing; from the thread that calls it, or when none does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._connection.close()
            os.close(self._dump)
            self._process = None

    def __del__(self) -> None:
        self.close()

    def _start(self) -> None:
        self._connection, theirs = Pipe()
        self._dump = os.memfd_create("crash")  # instead of the terminal, where it would be too long
        fcntl.fcntl(self._dump, fcntl.F_SETFL, os.O_APPEND)
        code = _MAIN.format(path=sys.path, fd=theirs.fileno(), dump=self._dump, parent=os.getpid())
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno(), self._dump],
                env={**os.environ, **ONE_EACH},  # read when numpy is loaded, before anything else could say so
            )  # fmt: skip
        try:
            if self._stopped:  # before there was a process to end
                raise ChildLost("killed", "its worker was stopped")
            self._ask(self._build, START_S)
        except BaseException:
            self.close()
            raise

    def _ask(self, value: Any, limit_s: float | None) -> Any:
        os.ftruncate(self._dump, 0)  # of earlier values; so it does not grow
        try:
            _send(self._connection, value)
            if not self._connection.poll(limit_s):
                self.close()
                raise ChildLost("timeout", f"its worker took longer than {limit_s or 0:g} s and was stopped")
            raised, answer = _receive(self._connection)
        except (EOFError, ConnectionError):
            raise self._lost() from None
        if not raised:
            return answer
        error, trace = answer
        if isinstance(error, DeviceError):
            self.close()
            raise ChildLost("device", f"its worker's device failed ({error})", trace)
        raise error from Elsewhere(trace)

    def _lost(self) -> ChildLost:
        assert self._process is not None
        code = self._process.wait()
        trace = os.pread(self._dump, DUMP_BYTES, 0).decode(errors="replace")
        self.close()
        if code == -signal.SIGKILL:
            return ChildLost("killed", "its worker was killed from outside, or because memory ran out")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return ChildLost("crash", f"its worker crashed ({how})", trace)


def run(
    child: Child[Work, Work], work: Work, stage: str, clip_timeout: float | None, attempts: int, apart: bool
) -> Work:
    """`work` after the stage in `child`; clips that crash or hang it `attempts` times fail with the reason.

    `apart`: the stage treats each clip separately, so clips are sent one by one from the start.
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
            do = "run again on another device" if one.reason == "device" else "check the file, or leave it out"
            work.fail(i, stage, one.reason, f"{path}: {one}, tried {tries}; {do}", attempts, one.trace)
        elif apart:
            work.take(i, one)
    if apart:
        return work
    whole = _try(child, work, clip_timeout, attempts)
    if isinstance(whole, Work):
        return whole
    for i, receipt in enumerate(work.receipts):  # each clip alone succeeds, all together fail
        if receipt.ok:
            text = f"{work.rows[i].path}: {whole} when given with its neighbours"
            work.fail(i, stage, whole.reason, text, attempts, whole.trace)
    return work


def _try(child: Child[Work, Work], work: Work, clip_timeout: float | None, attempts: int) -> Work | ChildLost:
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
        done.regain(work)
        if len(done.rows) > 1 or done.receipts[0].reason not in INFRASTRUCTURE:
            return done
        done.receipts[0] = replace(done.receipts[0], attempts=attempt)
        last = done
    assert last is not None
    return last


def limit_s(frames: int, clip_timeout: float | None) -> float:
    """Seconds that a stage may take for a clip with `frames` in its header before it counts as hung."""
    return clip_timeout if clip_timeout is not None else BASE_S + TIMES * frames / FPS


def _serve(fd: int, dump: int, parent: int) -> None:
    """The child's main function: build, then answer until the other end closes. A crash writes its position to the file
    `dump`; after building, so does everything that would go to the terminal."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent died before the death signal was set
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    faulthandler.enable(file=dump)
    connection = Connection(fd)
    call = None
    while True:
        try:
            value = _receive(connection)
        except EOFError:
            return
        try:
            if call is None:
                call, answer = value(), None
                _silence(dump)
            else:
                answer = call(value)
            parts = _pickled((False, answer))
        except Exception as error:
            parts = _pickled((True, (_portable(error), traceback.format_exc())))
        value = answer = None  # the next value may be as large again
        _send_parts(connection, parts)
        del parts


def _silence(dump: int) -> None:
    """From here on everything for standard output and error goes to the file `dump`: also the last words of glibc and
    other libraries, which no Python handler sees."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for number in (1, 2):
        os.dup2(dump, number)


def _portable(error: Exception) -> Exception:
    """The error itself if it pickles; a library's error may not, but its text does."""
    try:
        pickle.loads(pickle.dumps(error, protocol=5))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def _pickled(value: Any) -> tuple[bytes, list[memoryview]]:
    """A value as its pickle, and the memory of its arrays, which is not copied."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return head, [buffer.raw() for buffer in buffers]


def _send(connection: Connection, value: Any) -> None:
    _send_parts(connection, _pickled(value))


def _send_parts(connection: Connection, parts: tuple[bytes, list[memoryview]]) -> None:
    head, buffers = parts
    files = [large.descriptor(buffer) for buffer in buffers]
    sizes = [len(buffer) if file is None else None for buffer, file in zip(buffers, files, strict=True)]
    connection.send_bytes(pickle.dumps((head, sizes)))
    for buffer, file in zip(buffers, files, strict=True):
        if file is not None:
            with socket.socket(fileno=os.dup(connection.fileno())) as line:
                socket.send_fds(line, [b"f"], [file])
            continue
        while buffer:
            buffer = buffer[os.write(connection.fileno(), buffer) :]


def _receive(connection: Connection) -> Any:
    """The value that `_send` sent; its arrays have their own memory, or are read-only in files (`concord.arrays.large`). Raises
    EOFError if the other end is gone."""
    head, sizes = pickle.loads(connection.recv_bytes())
    buffers: list[np.ndarray] = []
    for size in sizes:
        if size is None:
            with socket.socket(fileno=os.dup(connection.fileno())) as line:
                _, files, _, _ = socket.recv_fds(line, 1, 1)
            if not files:
                raise EOFError
            buffers.append(large.received(files[0]))
            continue
        buffers.append(np.empty(size, np.uint8))
        left = memoryview(buffers[-1])  # type: ignore[arg-type]
        while left:
            count = os.readv(connection.fileno(), [left])
            if not count:
                raise EOFError
            left = left[count:]
    return pickle.loads(head, buffers=buffers)
