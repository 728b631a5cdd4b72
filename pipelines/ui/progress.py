"""Progress of a pass over clips: a live view on a terminal, one plain line every half minute in logs.

Time left is estimated from work: the planned frames in finished batches, at the speed of the last two minutes. So
neither the start of the workers nor long clips at the end distort it. Rates by stage are those of the last minute.

rich draws the live view. Counting and wording are implemented here: rich's progress bar has one task with equal steps,
shows nothing in logs, and would count the start of the workers as work. Here several stages share one bar, and logs get
the same figures.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

log = logging.getLogger(__name__)

POLL_S = 1.0
LOG_EVERY_S = 30.0
RATE_S = 60.0  # seconds over which rates by stage are averaged
LEAST_S = 10.0  # at least: clips come in whole batches
SPEED_S = 120.0  # seconds over which the speed for the time left is measured
FEW = 3  # batches after which the start of the workers is no longer included
BAR = 30  # columns

Counts = Mapping[str, Mapping[str, float]]


class Pass:
    """One pass: `total` units (clips, shards) in all, `work` in all (frames, or units again), and the stages that units
    pass through, if there are several."""

    def __init__(
        self,
        name: str,
        total: int,
        work: float | None = None,
        stages: Sequence[str] = (),
        unit: str = "clips",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.total, self.stages, self.unit, self.clock = name, total, tuple(stages), unit, clock
        self.work = float(total if work is None else work)
        self.finished = 0
        self.failed: dict[str, int] = {}  # by stage
        self.begun = clock()
        self._steps = deque([(self.begun, 0.0)])  # time, finished work
        self._counts: deque[tuple[float, dict[str, float]]] = deque([(self.begun, {})])  # time, clips by stage

    def advance(self, units: int = 1, work: float | None = None, failed: Sequence[str] = ()) -> None:
        """Add finished units and work; `failed` are the stages at which clips failed."""
        self.finished += units
        for stage in failed:
            self.failed[stage] = self.failed.get(stage, 0) + 1
        now, before = self.clock(), self._steps[-1][1]
        self._steps.append((now, before + (units if work is None else work)))
        if self._steps[0][1] == 0 and len(self._steps) > FEW:
            self._steps.popleft()
        while len(self._steps) > 2 and self._steps[1][0] < now - SPEED_S:
            self._steps.popleft()

    def sample(self, counts: Counts) -> None:
        """Record how many clips each stage has passed on."""
        now = self.clock()
        self._counts.append((now, {stage: float(c["clips"]) for stage, c in counts.items()}))
        while len(self._counts) > 2 and self._counts[1][0] < now - RATE_S:
            self._counts.popleft()

    def rate(self, stage: str) -> float:
        """Clips per second that the stage passed on in the last minute, or since its first clip; 0 before that."""
        ended, last = self._counts[-1][0], self._counts[-1][1].get(stage, 0.0)
        begun, first = max(
            ((at, 0.0) for at, clips in list(self._counts) if not clips.get(stage)),
            default=(self._counts[0][0], self._counts[0][1].get(stage, 0.0)),
        )
        return (last - first) / max(ended - begun, LEAST_S)

    def waiting(self) -> list[int]:
        """By stage, clips that the previous stage has finished and this one has not."""
        counts = self._counts[-1][1]
        come, found = float(self.total), []
        for k, stage in enumerate(self.stages):
            gone = counts.get(stage, 0.0)
            # Stages do not pass on failed clips. Failures before the second stage count for the first (decode, face).
            lost = sum(n for at, n in dict(self.failed).items() if at == stage or (k == 0 and at not in self.stages))
            found.append(max(0, round(come - gone - lost)))
            come = gone
        return found

    def left_s(self) -> float | None:
        """Seconds left by the speed of the last two minutes; None before anything is finished."""
        (begun, first), (_, last) = self._steps[0], self._steps[-1]
        if last <= first or last <= 0:
            return None
        return max(0.0, self.work - last) * max(self.clock() - begun, 1e-9) / (last - first)

    def left(self) -> str:
        """The time left in words."""
        if self.finished >= self.total:
            return "finishing"
        seconds = self.left_s()
        return "starting" if seconds is None else f"{clock(seconds)} left"

    def line(self) -> str:
        """The progress in one line, for logs."""
        told = [self._done()]
        if self.stages:
            each = zip(self.stages, self.waiting(), strict=True)
            told += [f"{stage} {self.rate(stage):.1f} {self.unit}/s ({waiting} waiting)" for stage, waiting in each]
        return f"{self.name}: {'; '.join([*told, self.left()])}"

    def lines(self) -> list[str]:
        """The progress for a terminal: a bar, and a line for each stage."""
        filled = round(BAR * min(1.0, self._steps[-1][1] / max(self.work, 1e-9)))
        found = [f"{self.name}  {'━' * filled}{'╌' * (BAR - filled)}  {self._done()}  {self.left()}"]
        for stage, waiting in zip(self.stages, self.waiting(), strict=True):
            found.append(f"  {stage:<6}{self.rate(stage):7.1f} {self.unit}/s  {waiting:7d} waiting")
        return found

    def last(self, whole: bool) -> str:
        """The final line: the amount of work, and the time."""
        spent = clock(self.clock() - self.begun)
        return (
            f"{self.name}: {self._done()} in {spent}"
            if whole
            else f"{self.name}: stopped at {self._done()}, after {spent}"
        )

    def _done(self) -> str:
        failed = sum(dict(self.failed).values())
        told = f"{self.finished} of {self.total}{f' {self.unit}' if self.unit != self.name else ''}"
        return f"{told}, {failed} failed" if self.stages else told


@contextmanager
def shown(now: Pass, read: Callable[[], Counts] | None = None) -> Iterator[Pass]:
    """Show the pass while the block runs; `read` returns the clips by stage and is called from a thread."""
    stop = threading.Event()
    thread = threading.Thread(target=_live if _on_terminal() else _quiet, args=(now, read, stop), daemon=True)
    if now.total:
        thread.start()
    whole = False
    try:
        yield now
        whole = True
    finally:
        stop.set()
        if now.total:
            thread.join(timeout=10)  # reading may hang if the cluster is gone
            log.info("%s", now.last(whole))


def _on_terminal() -> bool:
    """Whether a redrawn view can be shown; logs and CI get lines."""
    return sys.stderr.isatty() and not os.environ.get("CI") and os.environ.get("TERM", "dumb") != "dumb"


def _live(now: Pass, read: Callable[[], Counts] | None, stop: threading.Event) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def view() -> Text:
        return Text("\n".join(now.lines()), no_wrap=True, overflow="ellipsis")

    with (
        Live(console=Console(stderr=True), get_renderable=view, refresh_per_second=2, transient=True),
        _logs_above(),
    ):
        while not stop.wait(POLL_S):
            _sample(now, read)


@contextmanager
def _logs_above() -> Iterator[None]:
    """Log lines within the block are printed above the view."""
    handlers = [h for h in logging.getLogger().handlers if isinstance(h, logging.StreamHandler)]
    kept = [(h, h.stream) for h in handlers if h.stream is sys.__stderr__]
    for handler, _ in kept:
        handler.setStream(sys.stderr)  # now redirected by rich
    try:
        yield
    finally:
        for handler, stream in kept:
            handler.setStream(stream)


def _quiet(now: Pass, read: Callable[[], Counts] | None, stop: threading.Event) -> None:
    told, before = time.monotonic(), ""
    while not stop.wait(POLL_S):
        _sample(now, read)
        if time.monotonic() - told >= LOG_EVERY_S:
            told, line = time.monotonic(), now.line()
            if line != before:  # while nothing comes, it is said once
                log.info("%s", line)
            before = line


def _sample(now: Pass, read: Callable[[], Counts] | None) -> None:
    if read is None:
        return
    try:
        now.sample(read())
    except Exception as error:  # the view must not end a run; the run itself notices problems of the cluster
        log.debug("the stages' counts cannot be read: %s", error)


def clock(seconds: float) -> str:
    """1:05, 2:01:05 or 1 d 02:01:05."""
    whole = round(max(seconds, 0))
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours:02d}:{minutes:02d}:{whole % 60:02d}"
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
