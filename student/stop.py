"""Ending a run cleanly: a signal is remembered, agreed on by all processes, and acted on between two steps."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch
from accelerate import Accelerator


class Stop:
    """Remembers a signal, and notices when the launcher that started this process is gone. A second signal ends at once."""

    def __init__(self) -> None:
        self.signal = 0
        launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
        self._parent = os.getppid() if launched else 0
        self._old = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}

    def _handle(self, number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        self.signal = number

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
