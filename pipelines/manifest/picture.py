"""A plot of a manifest: the number of clips of each method in every split, and their lengths."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from concord.text import label
from pipelines.audit import nuisances
from pipelines.corpora.manifest import Row
from store import output

COMMAND = "pipelines.manifest"
INK, MUTED = "#1b1b1f", "#8a8f98"
SPLITS = {"train": "#3d5a80", "val": "#8fb3d9", "test": "#e08e45", "": "#c9cdd3"}
LABELS = {0: ("real", "#1f7a4d"), 1: ("fake", "#b3261e"), -1: ("unknown", "#8a8f98")}
MOST = 24  # methods with a separate bar
SHARE = 0.98  # of clips that the lengths' axis shows


def draw(rows: Sequence[Row], file: str) -> None:
    """Write the plot to `file` (.png or .svg), completely or not at all."""
    from matplotlib.figure import Figure

    count = Counter((_kind(row), row.split) for row in rows)
    size = Counter(_kind(row) for row in rows)
    kinds = sorted(size, key=lambda kind: (kind[0], kind[1] != 0, -size[kind], kind[2]))
    more, kinds = kinds[MOST:], kinds[:MOST]
    figure = Figure(figsize=(11, max(3.6, 1.7 + 0.32 * len(kinds))), dpi=120, layout="constrained")
    bars, lengths = figure.subplots(1, 2, width_ratios=[1.5, 1])

    left = np.zeros(len(kinds))
    for split, colour in SPLITS.items():
        width = np.array([count[kind, split] for kind in kinds])
        if width.any():
            bars.barh(range(len(kinds)), width, left=left, color=colour, label=split or "no split", height=0.72)
        left += width
    for k, kind in enumerate(kinds):
        bars.text(left[k], k, f" {size[kind]:,}", va="center", fontsize=8, color=INK)
    several = len({kind[0] for kind in size}) > 1
    bars.set_yticks(range(len(kinds)), [label(_name(kind, several)) for kind in kinds])
    bars.invert_yaxis()
    bars.set_xlim(0, 1.12 * left.max())
    bars.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    title = f"{len(rows):,} clips by method and split"
    bars.set_title(
        f"{title} ({len(more)} more methods not drawn)" if more else title, loc="left", fontsize=11, color=INK
    )
    bars.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.99), ncols=4)

    seconds = nuisances.listed(rows)["duration"].to_numpy()
    labels = np.array([row.label for row in rows])
    known = ~np.isnan(seconds)
    if known.any():
        end = float(np.quantile(seconds[known], SHARE))
        edges = np.linspace(0, max(end, 1e-3), 41)
        for value, (name, colour) in LABELS.items():
            mine = seconds[known & (labels == value)]
            if len(mine):
                share = np.full(len(mine), 100 / len(mine))
                text = f"{name}, median {np.median(mine):.1f} s"
                lengths.hist(
                    np.minimum(mine, end), edges, weights=share, color=colour, histtype="step", lw=1.8, label=text
                )
        lengths.set_xlabel(f"listed seconds (the last bar: {end:.1f} s and more)", fontsize=9)
        lengths.set_xlim(0, edges[-1])
        lengths.yaxis.set_major_formatter(lambda y, _: f"{y:g} %")
        lengths.legend(fontsize=8, frameon=False)
    else:
        lengths.text(0.5, 0.5, "no list says how long clips are", ha="center", color=MUTED, transform=lengths.transAxes)
        lengths.set(xticks=[], yticks=[])
    lengths.set_title("Lengths, share of each label's clips", loc="left", fontsize=11, color=INK)
    for axis in (bars, lengths):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8, colors=INK)
    drawn, form = io.BytesIO(), Path(file).suffix.lower()[1:]
    figure.savefig(drawn, format=form, metadata=output.picture_metadata(COMMAND, form))
    output.write(file, drawn.getvalue())


def _kind(row: Row) -> tuple[str, int, str, str]:
    return row.corpus, row.label, row.category, row.method


def _name(kind: tuple[str, int, str, str], several: bool) -> str:
    corpus, label, category, method = kind
    name = " ".join(filter(None, (category, method or LABELS[label][0])))
    return f"{corpus.partition(':')[0]}: {name}" if several else name
