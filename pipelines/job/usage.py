"""Usage of a run: seconds by part, and the work of its workers by stage, added up from the spans that come with each
batch.

Its memory is bounded: a timeline has at most `BINS` bins, whose width doubles when a run becomes longer.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipelines.tables.ledger import Entry
from pipelines.workers.work import Span
from store.seen import Seen

BINS = 120
ALONE = "words"  # the stage that is a pass of its own
BIN_S = 1.0  # initial width of a bin


@dataclass
class StageUsage:
    """One stage: clips, frames, frames with padding, busy seconds; {worker: [start, end]} of its first and last work;
    clips and busy seconds by bin of the run's time."""

    clips: int = 0
    frames: int = 0
    padded: int = 0
    busy_s: float = 0.0
    workers: dict[str, list[float]] = field(default_factory=dict)
    clips_in: list[float] = field(default_factory=lambda: [0.0] * BINS)
    busy_in: list[float] = field(default_factory=lambda: [0.0] * BINS)

    @property
    def present_s(self) -> float:
        """Seconds between first and last work, of all workers together."""
        return sum(ended - begun for begun, ended in self.workers.values())

    @property
    def span_s(self) -> float:
        """Seconds between the first and the last work of any worker."""
        return max((w[1] for w in self.workers.values()), default=0.0) - min(
            (w[0] for w in self.workers.values()), default=0.0
        )

    @property
    def utilisation(self) -> float:
        """Busy share of the time between each worker's first and last work; 0 before any work."""
        return self.busy_s / self.present_s if self.present_s > 0 else 0.0

    @property
    def padding(self) -> float:
        """Frames of padding as a share of the clips' own."""
        return self.padded / self.frames - 1 if self.frames else 0.0

    @property
    def most_workers(self) -> int:
        """The largest number of workers at work at the same time; one that replaced another is not counted twice."""
        moments = sorted(m for begun, ended in self.workers.values() for m in ((begun, 1), (ended, -1)))
        now = most = 0
        for _, step in moments:
            now += step
            most = max(most, now)
        return most


@dataclass
class Usage:
    """All stages of a run, by name, in the order of the pipeline; the run began at `begun` (seconds since 1970)."""

    stages: dict[str, StageUsage] = field(default_factory=dict)
    begun: float = field(default_factory=time.time)
    bin_s: float = BIN_S

    def share(self, name: str) -> float:
        """Busy share of a stage's workers over the whole pass, which all stages but that of words have in common."""
        together = [stage for other, stage in self.stages.items() if (other == ALONE) == (name == ALONE)]
        times = [time for stage in together for worker in stage.workers.values() for time in worker]
        stage, whole = self.stages[name], max(times) - min(times)
        return stage.busy_s / (stage.most_workers * whole) if whole > 0 else 0.0

    def add(self, spans: Iterable[Span], now: float | None = None) -> None:
        """Count a batch's spans; they are cut at the present time `now`, because a node's clock may be wrong."""
        now = time.time() if now is None else now
        for span in spans:
            stage = self.stages.setdefault(span.stage, StageUsage())
            stage.clips += span.clips
            stage.frames += span.frames
            stage.padded += span.padded
            stage.busy_s += span.ended - span.begun
            seen = stage.workers.setdefault(span.worker, [span.begun, span.ended])
            seen[:] = min(seen[0], span.begun), max(seen[1], span.ended)
            begun, ended = (min(max(t, self.begun), now) - self.begun for t in (span.begun, span.ended))
            self._lay(stage, begun, ended, span.clips)

    def _lay(self, stage: StageUsage, begun: float, ended: float, clips: int) -> None:
        """Spread a span's clips and seconds over the bins that it touches."""
        while ended >= BINS * self.bin_s:
            self.bin_s *= 2
            for each in self.stages.values():
                for bins in (each.clips_in, each.busy_in):
                    bins[:] = [a + b for a, b in zip(bins[::2], bins[1::2], strict=True)] + [0.0] * (BINS // 2)
        length = ended - begun
        for k in range(int(begun / self.bin_s), int(ended / self.bin_s) + 1):
            inside = min(ended, (k + 1) * self.bin_s) - max(begun, k * self.bin_s)
            stage.busy_in[k] += inside
            stage.clips_in[k] += clips * (inside / length if length > 0 else 1.0)


@dataclass
class Parts:
    """Seconds of the driver's time by part of a run. A part inside another stops the outer one's clock."""

    seconds: dict[str, float] = field(default_factory=dict)
    jobs_s: dict[str, float] = field(default_factory=dict)  # the same, times the number of parallel tasks
    broken: str = ""  # the part that an error or a signal ended
    _open: list[str] = field(default_factory=list)
    _since: float = 0.0

    @contextmanager
    def part(self, name: str, jobs: int = 1) -> Iterator[None]:
        """Count the block's time as `name`'s; `jobs` tasks of it run at the same time."""
        self._turn()
        self._open.append(name)
        self.broken = ""  # an earlier error was handled
        before, ended = self.seconds.setdefault(name, 0.0), False
        try:
            yield
            ended = True
        finally:
            if not ended:
                self.broken = self.broken or name
            self._turn()
            if name in self._open:
                self._open.remove(name)
            self.jobs_s[name] = self.jobs_s.get(name, 0.0) + (self.seconds[name] - before) * jobs

    def _turn(self) -> None:
        """Add the time since the last call to the innermost part."""
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


@dataclass
class Summary:
    """The summary of a run, for the report, the last lines and the exit code."""

    clips: int = 0  # in the store
    done: int = 0  # in the store
    worked: int = 0  # clips that this run finished
    seconds: float = 0.0
    video_seconds: float = 0.0  # of the clips that this run finished
    usage: Usage = field(default_factory=Usage)
    parts: Parts = field(default_factory=Parts)
    breaks: int = 0  # number of times that workers or nodes were lost and the stream of batches was resumed
    failed: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # of clips that can be used, as in the ledger
    labelled: bool = True
    similarity: dict[str, Any] = field(default_factory=dict)
    cpus: int = 0  # in a dry run: CPUs of the cluster that would do the work
    dims: int = 0  # in a dry run: columns of both embeddings
    arrays: tuple[str, ...] = ()  # of layout.OPTIONAL_ARRAYS, that the store has
    splits: tuple[str, ...] = ()  # lines about the splits that the run set
    warning: str = ""  # in a dry run: what will be missing
    seen: dict[str, Seen] = field(default_factory=dict)  # by split: clips that the fit has learned from
    report: str = ""  # path of the report's page
    traces: str = ""  # path of the tracebacks of the program's own errors, if there were any


def first_line(error: BaseException) -> str:
    """One line for an error: the last line of its text, because Ray puts tracebacks before it."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
