"""One line a stage with rate and time left: live on a terminal, a plain line now and then in logs."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)

LIVE_EVERY_S = 0.5
LOG_EVERY_S = 30.0

Counts = dict[str, dict[str, float]]


class Lines:
    """The state that the lines show; `advance` counts clips that left the last stage, done or failed."""

    def __init__(self, stages: Sequence[str], total: dict[str, float]) -> None:
        self.stages, self.total, self.begun = stages, total, time.monotonic()
        self.finished = self.failed = 0

    def advance(self, receipts: Sequence[dict[str, Any]]) -> None:
        """Receipts of a batch that is staged."""
        self.finished += len(receipts)
        self.failed += sum(1 for receipt in receipts if receipt["reason"])

    def text(self, counts: Counts) -> list[str]:
        """A line for each stage: clips, rate, time left from the frames still to do."""
        elapsed = max(time.monotonic() - self.begun, 1e-6)
        lines = []
        for stage in self.stages:
            now = counts.get(stage, {"clips": 0, "frames": 0})
            share = min(1.0, now["frames"] / max(self.total["frames"], 1))
            left = f"{_clock(elapsed / share - elapsed)} left" if share > 0 else "waiting"
            rate = f"{now['clips'] / elapsed:6.1f} clips/s"
            lines.append(f"{stage:>5} {now['clips']:6.0f} of {self.total['clips']:.0f} clips  {rate}  {left}")
        lines.append(
            f"{'total':>5} {self.finished:6d} of {self.total['clips']:.0f} clips  {self.failed} failed  {_clock(elapsed)} gone"
        )
        return lines


@contextmanager
def lines(stages: Sequence[str], total: dict[str, float], read: Callable[[], Counts]) -> Iterator[Lines]:
    """Show the lines while the block runs; `read` gives the counts by stage and is called from a thread."""
    state = Lines(stages, total)
    if not total["clips"]:
        yield state
        return
    stop = threading.Event()
    thread = threading.Thread(target=_live if sys.stderr.isatty() else _quiet, args=(state, read, stop), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        stop.set()
        thread.join()


def _live(state: Lines, read: Callable[[], Counts], stop: threading.Event) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(Text(""), console=Console(stderr=True), refresh_per_second=4) as live:
        while not stop.wait(LIVE_EVERY_S):
            live.update(Text("\n".join(state.text(read()))))
        live.update(Text("\n".join(state.text(read()))))


def _quiet(state: Lines, read: Callable[[], Counts], stop: threading.Event) -> None:
    while not stop.wait(LOG_EVERY_S):
        for line in state.text(read()):
            log.info("%s", line)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
