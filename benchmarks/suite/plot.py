"""The figures of a run as one picture: a panel for each part that has something to show."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import parts
from benchmarks.parts import Result, Row
from store.output import picture_metadata

COMMAND = "benchmarks"
OURS, OTHERS, FLOOR = "#1f6f8b", "#b9c2c7", "#d8a24a"


def png(results: Sequence[Result], about: str) -> bytes:
    """The picture; parts without rows are left out."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = [(result, PANELS[result.name]) for result in results if result.name in PANELS and _measured(result)]
    columns = min(2, max(1, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    figure, axes = plt.subplots(rows, columns, figsize=(6.8 * columns, 3.5 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, (result, draw) in zip(axes.flat, shown, strict=False):
        draw(axis, _measured(result))
        axis.set_title(result.title, loc="left", fontsize=11)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(about, fontsize=8, x=0.01, ha="left", color="#555555")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, metadata=picture_metadata(COMMAND, "png"))
    plt.close(figure)
    return out.getvalue()


def _measured(result: Result) -> list[Row]:
    return [row for row in result.rows if any(value is not None for value in row.figures.values())]


def _bars(column: str, unit: str, log: bool = False) -> Callable[[Any, list[Row]], None]:
    """Bars of one column, the project's own and the floor in other colours."""

    def draw(axis: Any, rows: list[Row]) -> None:
        rows = [row for row in rows if row.figures.get(column) is not None][::-1]
        values = [float(row.figures[column] or 0) for row in rows]
        names = [row.name for row in rows]
        colours = [
            FLOOR if n.startswith("its ") else OURS if "concord" in n or "precompute" in n else OTHERS for n in names
        ]
        axis.barh(np.arange(len(rows)), values, color=colours)
        axis.set_yticks(np.arange(len(rows)), names, fontsize=8)
        axis.set_xlabel(unit, fontsize=9)
        if log:
            axis.set_xscale("log")
        for y, value in enumerate(values):
            axis.annotate(parts.shown(value), (value, y), (3, 0), textcoords="offset points", va="center", fontsize=8)
        axis.margins(x=0.15)
        axis.set_ylim(min(-0.6, len(rows) - 5), len(rows) - 0.4)  # few bars are no thicker than many

    return draw


def _growth(axis: Any, rows: list[Row]) -> None:
    """Processor seconds and MiB by the number of clips, both on logarithmic axes."""
    counts = [int(row.name.partition(" ")[0].replace(",", "")) for row in rows]
    second = axis.twinx()
    for column, style, label in (("CPU s", "o-", "planning"), ("start CPU s", "s-", "start of training")):
        axis.plot(counts, [row.figures[column] for row in rows], style, color=OURS, label=f"{label}, s")
    for column, style, label in (("MiB", "o:", "planning"), ("start MiB", "s:", "start of training")):
        second.plot(counts, [row.figures[column] for row in rows], style, color=FLOOR, label=f"{label}, MiB")
    for one in (axis, second):
        one.set_yscale("log")
    axis.set_xscale("log")
    axis.set_xlabel("clips", fontsize=9)
    axis.set_ylabel("processor seconds", fontsize=9)
    second.set_ylabel("MiB at most", fontsize=9)
    lines = [*axis.get_legend_handles_labels()[0], *second.get_legend_handles_labels()[0]]
    axis.legend(lines, [line.get_label() for line in lines], fontsize=7, frameon=False)


PANELS: dict[str, Callable[[Any, list[Row]], None]] = {
    "formats": _bars("windows/s", "windows a second", log=True),
    "workers": _bars("windows/s", "windows a second"),
    "growth": _growth,
    "teachers": _bars("x real time", "seconds of video a second", log=True),
    "training": _bars("loader over step", "windows that the loader gives for each that the step takes"),
    "precompute": _bars("clips/s", "clips a second"),
}
