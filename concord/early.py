"""The time before a command runs, while its modules are imported: signals and missing packages end it without a traceback.

Ctrl-C and SIGTERM are one word and the usual exit code; a missing package is one line that says what to do. At that time
there is nothing to clean up. `concord.command` takes over when the command itself runs. This module needs nothing but
Python at its start, so that it can be loaded first.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
OLDEST = (3, 11)  # Python
ROOT = Path(__file__).parents[1]  # the checkout, or where packages are installed


def end_on_signals() -> None:
    """From now on both signals end the process immediately; a signal that is ignored (nohup) or already handled stays
    so. So does a missing package."""
    explain_missing()
    for number in SIGNALS:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, ended)


def ended(number: int, _: FrameType | None) -> None:
    try:
        os.write(2, b"stopped\n")
    finally:
        os._exit(128 + number)


def explain_missing() -> None:
    """From now on an import of a package that is not there ends the process with a line, exit code 2; a Python that is too
    old does so at once."""
    if sys.version_info < OLDEST:
        _give_up(f"Python {'.'.join(map(str, OLDEST))} or later is needed, and this is {sys.version.split()[0]}")
    sys.excepthook = _shown


def _shown(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, ModuleNotFoundError) or error.name is None or (ROOT / error.name.split(".")[0]).exists():
        sys.__excepthook__(kind, error, trace)
        return
    from concord.extras import told

    _give_up(told(error) or f"{error.name.split('.')[0]} is not installed for {sys.executable}")


def _give_up(why: str) -> None:
    venv = ROOT / ".venv"
    if "pip install" in why:
        how = ""
    elif venv.exists() and not os.path.samefile(venv, sys.prefix):
        how = f": activate the project's environment first: source {venv / 'bin' / 'activate'}"
    elif (ROOT / "Makefile").exists():
        how = f": run make install in {ROOT}, then source .venv/bin/activate"
    else:
        how = ": pip install concord-av"
    try:
        os.write(2, f"Error: {why}{how}\n".encode(errors="backslashreplace"))
    finally:
        os._exit(2)
