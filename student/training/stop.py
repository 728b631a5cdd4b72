"""Ending a run cleanly: a signal is remembered, shared among all processes, and handled between two steps."""

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
AGAIN_S = 3.0  # a terminal signals every process, and a launcher passes the same signal on within this time


class Stop:
    """Remembers a signal, and notices when the launcher that started this process is gone. A signal at least AGAIN_S
    later is a second one from the user, and ends the process immediately."""

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
        """The signal that any process received, 0 for none; the same result in all processes."""
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
    """Processes started within the block never get SIGINT or SIGTERM, which a terminal or a scheduler sends to all,
    because the current step needs its readers. They end with the process that started them. A signal during the block
    is delivered after it."""
    resource_tracker.ensure_running()  # if started later, it would unblock both
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
