"""Ctrl-C and SIGTERM during the imports of a command: one word and the usual exit code, no traceback.

At that time there is nothing to clean up. `concord.command` takes over when the command itself runs. This module
imports nothing else of this project, so that it can be loaded first.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def end_on_signals() -> None:
    """From now on both signals end the process immediately; a signal that is ignored (nohup) or already handled stays
    so."""
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, ended)


def ended(number: int, _: FrameType | None) -> None:
    try:
        os.write(2, b"stopped\n")
    finally:
        os._exit(128 + number)
