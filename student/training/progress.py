"""Progress display of training: one live bar with ETA on a terminal, an occasional line in logs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from concord.text import plain

QUIET_S = 15.0  # between lines in a log
LIVE_S = 0.2  # between updates of the figures beside a bar


class Progress:
    """Finished steps of a run, on standard error of the main process only. Use as a context manager."""

    def __init__(self, total: int, done: int, enabled: bool) -> None:
        self.total, self.done, self.enabled = total, done, enabled
        self.live = enabled and sys.stderr.isatty()
        self._begin, self._first, self._said = time.monotonic(), done, 0.0
        self._bar: Any = None
        self._text = ""

    def __enter__(self) -> Progress:
        if self.live:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("train"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
            )
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("", total=self.total, completed=self.done)
            self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, done: int, text: Callable[[], str]) -> None:
        """`done` steps of the run are finished; `text` returns the newest figures and is called only when they are
        shown, because reading them from a GPU waits for it."""
        self.done = done
        now = time.monotonic()
        if self._bar:
            if now - self._said > LIVE_S or done == self.total:
                self._said, self._text = now, text()
            self._bar.update(self._task, completed=done, description=self._text)
        elif self.enabled and now - self._said > QUIET_S:
            self._said = now
            left = self.remaining()
            self.say(f"step {done} of {self.total}, {text()}" + (f", {left} left" if left else ""))

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._bar:
            self._bar.console.print(plain(text), highlight=False, markup=False)
        elif self.enabled:
            print(plain(text), file=sys.stderr, flush=True)

    def remaining(self) -> str:
        """Time left, from the steps since this start; "" if there are too few."""
        steps = self.done - self._first
        if steps < 1:
            return ""
        left = (time.monotonic() - self._begin) / steps * (self.total - self.done)
        return f"{left / 60:.0f} min" if left >= 120 else f"{left:.0f} s"
