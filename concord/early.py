"""Ctrl-C and SIGTERM while a command still imports what it needs: one word and an exit code of ours, no traceback.

Nothing is begun by then that would have to be cleared up. `concord.command` takes over once the command itself runs. It needs
nothing else of ours, so that it is there first.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_on_signals() -> None:
    """From here on both signals end the process at once; one that is ignored (nohup) or watched by others stays so."""
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, ended)


def ended(number: int, _: FrameType | None) -> None:
    try:
        os.write(2, b"stopped\n")
    finally:
        os._exit(128 + number)
