"""One run of all speed measurements: `python -m benchmarks --quick` and `python -m benchmarks --all`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import parts
from benchmarks.parts import Part, Result, Row
from benchmarks.suite import plot
from concord.command import put, say
from concord.plain_json import cleaned
from store import output
from store.output import Output

JSON = output.marked("figures of benchmarks", b'{\n  "format": "concord-av benchmarks"')
MINUTES = {True: 12.0, False: 90.0}  # by --quick: more than an idle machine needs, so that a busy one ends, too


def plan(quick: bool, corpus: str | None) -> list[Part]:
    """The parts with their sizes: a sample for `quick`, else what docs/performance.md shows."""
    from benchmarks.device import loading
    from benchmarks.suite import growing, models, reading, whole

    lite = ["lite"] if quick else ["lite", "lite with texture", "talknet"]
    return [
        Part("formats", "Windows of 75 frames from a store and from other formats", reading.formats,
             {"store_rows": 16_800 if quick else 42_000, "rounds": 5}, 2.0),
        Part("workers", "The trainer's loader by its processes", reading.workers,
             {"store_rows": 16_800, "counts": [0, 1, 2], "windows": 8, "rounds": 3 if quick else 7}, 1.5),
        Part("growth", "Cost as the corpus grows", growing.sizes,
             {"counts": [5_000, 25_000] if quick else [10_000, 100_000, 1_000_000]}, 2.0 if quick else 6.0),
        Part("teachers", "Teachers on clips of 3 s, one thread", models.every,
             {"num_clips": 8 if quick else 16, "rounds": 3 if quick else 5, "large": not quick, "threads": 1}, 1.5),
        Part("training", "Training steps and the loader, batches of 8 windows, one thread", loading.rows,
             {"device": "cpu", "names": lite, "windows": 8, "workers": [0], "store_rows": 8_400,
              "count": 6 if quick else 12, "threads": 1}, 1.0 if quick else 2.0),
        Part("precompute", "Precompute against the naive loop", whole.against_naive,
             {"corpus": corpus, "clips": 24 if quick else 300, "num_naive": 6 if quick else 30,
              "workers": [1] if quick else [1, 2]}, 3.0),
    ]  # fmt: skip


def run(
    quick: bool, chosen: tuple[str, ...], corpus: str | None, minutes: float | None, files: dict[str, Path | None]
) -> int:
    """Measure, print the table, write `files` ("json", "plot"); 0, or 3 where a part ended early."""
    kinds = {"json": JSON, "plot": output.picture(plot.COMMAND)}
    output.check([Output(path, kinds[name]) for name, path in files.items() if path and str(path) != "-"])
    head = {"command": sys.argv[1:], "machine": about(), "quick": quick}

    def text(results: list[Result]) -> bytes:
        document = parts.document(plot.COMMAND, head, results)
        return (json.dumps(cleaned(document), indent=2) + "\n").encode()

    def watch(results: list[Result], row: Row | None) -> None:
        result = results[-1]
        say(f"{result.name}: {row.name}" if row else f"{result.name}: {result.ended or 'done'}", err=True)
        if row is None and files["json"] and str(files["json"]) != "-":
            output.write(files["json"], text(results))  # so that a run that is stopped leaves what it measured

    wanted = [part for part in plan(quick, corpus) if not chosen or part.name in chosen]
    results = parts.run(wanted, minutes or MINUTES[quick], watch=watch)
    machine = ", ".join(f"{key} {value}" for key, value in head["machine"].items())
    if files["plot"]:
        output.write(files["plot"], plot.png(results, machine))
    if str(files["json"]) == "-":
        put(text(results).decode().rstrip("\n"))
    else:
        put(f"{machine}\n\n{parts.table(results)}")
    return 3 if parts.failed(results) else 0


def about() -> dict[str, Any]:
    """The machine, and versions of what the figures depend on."""
    from importlib.metadata import version

    names = ("torch", "numpy", "zarr", "numcodecs")
    return {**parts.machine(), **{name: version(name) for name in names}}
