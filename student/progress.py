"""What a person sees while training: one live bar with ETA on a terminal, a quiet line now and then in logs."""

from __future__ import annotations

import sys
import time
from typing import Any

from store.text import plain

QUIET_S = 15.0  # between lines in a log


class Progress:
    """Steps done of a run, on standard error of the main process alone. Use as a context manager."""

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

    def step(self, done: int, text: str = "") -> None:
        """`done` steps of the run are done; `text` is the newest figures, which stay until there are newer ones."""
        self.done, text = done, text or self._text
        self._text = text
        if self._bar:
            self._bar.update(self._task, completed=done, description=text)
        elif self.enabled and time.monotonic() - self._said > QUIET_S:
            self._said = time.monotonic()
            self.say(f"step {done} of {self.total}, {text}, {self.remaining()} left")

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._bar:
            self._bar.console.print(plain(text), highlight=False, markup=False)
        elif self.enabled:
            print(plain(text), file=sys.stderr, flush=True)

    def remaining(self) -> str:
        """Time left, from the steps of this start alone."""
        steps = self.done - self._first
        if steps < 1:
            return "?"
        left = (time.monotonic() - self._begin) / steps * (self.total - self.done)
        return f"{left / 60:.0f} min" if left >= 120 else f"{left:.0f} s"
