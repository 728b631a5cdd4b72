"""Ending a run cleanly: a signal is remembered, agreed on by all processes, and acted on between two steps."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

import torch
from accelerate import Accelerator

SIGNALS = (signal.SIGINT, signal.SIGTERM)
AGAIN_S = 3.0  # a terminal signals every process, and a launcher passes the same on to its own within this time


class Stop:
    """Remembers a signal, and notices when the launcher that started this process is gone. One that comes AGAIN_S later or more
    is a person's second, and ends it at once."""

    def __init__(self) -> None:
        self.signal = 0
        self._at = 0.0
        launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
        self._parent = os.getppid() if launched else 0
        self._old = {s: signal.signal(s, self._handle) for s in SIGNALS}

    def _handle(self, number: int, _: Any) -> None:
        now = time.monotonic()
        if not self.signal:
            self.signal, self._at = number, now
        elif now - self._at > AGAIN_S:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def asked(self, accelerator: Accelerator) -> int:
        """The signal that any process got, 0 for none; the same answer in all processes."""
        if self._parent and os.getppid() != self._parent and not self.signal:
            self.signal = signal.SIGTERM
        if accelerator.num_processes == 1:
            return self.signal
        flag = torch.tensor(float(self.signal), device=accelerator.device)
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return int(flag.item())

    def restore(self) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Processes that are started meanwhile never get SIGINT or SIGTERM, which a terminal or a scheduler sends to all: the step
    under way needs its readers. They end with the process that started them. A signal that comes meanwhile comes after it."""
    resource_tracker.ensure_running()  # it unblocks both where it starts later
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
