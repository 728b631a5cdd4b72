"""Parts of a long measurement, each in a process of its own within a budget of time: a part that fails, hangs or crashes
is a row in the table, and the others go on.

A part is a function of a module that yields rows as it measures them, so what was measured before a failure is kept. Its
process leads a process group: what it started ends with it.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import platform
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from concord.command import told

CLEAN_UP_S = 5.0  # for the processes of a part that was stopped


@dataclass(frozen=True)
class Row:
    """One line of the table: figures by the name of their column (None = not known), and a note."""

    name: str
    figures: Mapping[str, float | None] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Part:
    """`work(**options)` yields rows; `share` is its part of the time, as a weight beside those of the other parts."""

    name: str
    title: str
    work: Callable[..., Iterator[Row]]
    options: Mapping[str, Any] = field(default_factory=dict)
    share: float = 1.0


@dataclass
class Result:
    """What a part gave: its rows, how long it took (processor_s: with the processes that it waited for), why it ended early
    ("" where it did not), and where in the code."""

    name: str
    title: str
    rows: list[Row]
    seconds: float = 0.0
    processor_s: float | None = None
    ended: str = ""
    trace: str = ""


@dataclass(frozen=True)
class _End:
    """The last that a part's process sends."""

    said: str
    trace: str
    processor_s: float


def run(
    parts: Sequence[Part],
    minutes: float,
    preload: Sequence[str] = (),
    watch: Callable[[list[Result], Row | None], None] = lambda results, row: None,
) -> list[Result]:
    """The results of all parts, which together take `minutes` at most; what a part leaves of its share goes to the later ones.

    `preload`: modules that all parts need and that touch no device; they are imported once. `watch` is called with the results
    so far and each new row, and with None in its place when a part has ended.
    """
    context: Any = multiprocessing.get_context("forkserver" if preload else "spawn")
    if preload:
        context.set_forkserver_preload(list(preload))
    results: list[Result] = []
    end = time.monotonic() + 60 * minutes
    for k, part in enumerate(parts):
        result = Result(part.name, part.title, [])
        results.append(result)
        left = end - time.monotonic()
        limit = left * part.share / sum(later.share for later in parts[k:])
        if limit <= 0:
            result.ended = "not begun: the time was used up; give it more --minutes"
        else:
            begun = time.monotonic()
            _one(part, limit, context, result, lambda row: watch(results, row))
            result.seconds = time.monotonic() - begun
        watch(results, None)
    return results


def _one(part: Part, limit: float, context: Any, result: Result, added: Callable[[Row], None]) -> None:
    """Run one part into its result."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, part.work, dict(part.options)))
    process.start()
    sender.close()
    end = time.monotonic() + limit
    try:
        while True:
            if not receiver.poll(max(0.0, end - time.monotonic())):
                result.ended = f"stopped after {limit:.0f} s, its share of the time; give it more --minutes"
                return
            try:
                got = receiver.recv()
            except EOFError:
                process.join(CLEAN_UP_S)
                result.ended = f"its process died ({_death(process.exitcode)})"
                return
            if isinstance(got, _End):
                result.ended, result.trace, result.processor_s = got.said, got.trace, got.processor_s
                return
            result.rows.append(got)
            added(got)
    finally:
        _end(process)
        receiver.close()


def _child(sender: Connection, work: Callable[..., Iterator[Row]], options: dict[str, Any]) -> None:
    """Send the rows of a part, then how it ended."""
    os.setsid()
    said = trace = ""
    try:
        for row in work(**options):
            sender.send(row)
    except Exception as error:
        said, trace = f"failed: {told(error)[:300]}", traceback.format_exc()
    spent = os.times()
    sender.send(_End(said, trace, spent.user + spent.system + spent.children_user + spent.children_system))


def _end(process: Any) -> None:
    """End a part's process, and what it started."""
    with suppress(ProcessLookupError, PermissionError):  # it has not made its group yet, or all of it is gone
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join(CLEAN_UP_S)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"{signal.Signals(-code).name}: out of memory, or a crash" if code == -9 else signal.Signals(-code).name
    return f"exit code {code}"


# -- the table and the file --------------------------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """All parts as one text, a section each; columns are those that its rows have."""
    return "\n".join(_section(result) for result in results)


def _section(result: Result) -> str:
    columns = list(dict.fromkeys(name for row in result.rows for name in row.figures))
    lines = [[result.name, *columns, ""]]
    for row in result.rows:
        lines.append([row.name, *(shown(row.figures.get(name)) for name in columns), row.note])
    wide = [max(len(line[k]) for line in lines) for k in range(len(columns) + 1)]
    busy = "" if result.processor_s is None else f", {result.processor_s:.0f} s of the processor"
    text = [f"{result.title} ({result.seconds:.0f} s{busy})"]
    for line in lines:
        cells = [line[0].ljust(wide[0]), *(cell.rjust(size) for cell, size in zip(line[1:-1], wide[1:], strict=True))]
        text.append("  ".join([*cells, line[-1]]).rstrip())
    if result.ended:
        text.append(result.ended)
    return "\n".join(text) + "\n"


def shown(value: float | None) -> str:
    """A figure with three digits that count; "" where it is not known."""
    if value is None or math.isnan(value):
        return ""
    size = abs(value)
    if size >= 100 or value == 0:
        return f"{value:,.0f}"
    if size < 0.01:
        return f"{value:.1e}"
    return f"{value:.{1 if size >= 10 else 2 if size >= 1 else 3}f}"


def document(name: str, about: Mapping[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    """What the JSON file of a run holds."""
    return {"format": f"concord-av {name}", "version": 1, **about, "parts": [asdict(result) for result in results]}


def failed(results: Sequence[Result]) -> list[str]:
    """The parts that ended early."""
    return [f"{result.name}: {result.ended}" for result in results if result.ended]


def machine() -> dict[str, Any]:
    """This machine in a few words: what a reader of the figures must know of it."""
    names = {line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")}
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    return {
        "processor": ", ".join(sorted(names)) or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory) / 2**20, 1),
        "load": round(os.getloadavg()[0], 1),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
