"""Cost of augmentation: each kind and the whole mix on real windows, compared with the loader without it.

    python -m benchmarks augment --store grid.zarr

A window is what training cuts from a clip of the store; one process, files in the page cache. Kinds: median milliseconds and
windows a second of the kind alone, and what its share of windows adds to the loader's mean time without augmentation (reading,
soft labels, putting batches together). The loader: with and without in turns on the same windows, ratios round by round.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import click
import numpy as np

import store
from store.dataset.spans import spans, window_for
from student.config import DataConfig
from student.data import augment
from student.data.corpus import Corpus
from student.data.dataset import Keys, Windows
from student.data.picture import CROP


def loaders(path: str) -> tuple[dict[str, Windows], list, int]:
    """The loader without and with augmentation, the batches of one epoch, and the window in frames."""
    reader = store.open(path)
    rows = np.flatnonzero(reader.clips["done"] == 1)
    inside = spans(reader, rows, DataConfig.trim)
    window = window_for(inside.length[rows], np.zeros(len(rows)), DataConfig.window)
    off = DataConfig(window=window, augment=False)
    corpus = Corpus.of(reader, rows, np.ones(len(reader), np.float32), inside, window)
    found = {
        name: Windows(path, corpus, config, 0, reader.fit is not None, (1.0, 1.0))
        for name, config in {"without": off, "with": replace(off, augment=True)}.items()
    }
    return found, list(Keys(corpus, off, 0, 0, 1)), window


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Clock and processor."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


@click.command(epilog="Example: python -m benchmarks augment --store grid.zarr")
@click.option("--store", "path", required=True, help="Store of real clips; it is only read.")
@click.option("--windows", default=96, show_default=True, help="Windows a round.")
@click.option("--rounds", default=5, show_default=True)
def main(path: str, windows: int, rounds: int) -> None:
    """Print both tables."""
    augment.report_missing()
    by_name, keys, length = loaders(path)
    size = DataConfig.batch_size
    keys = keys[: max(1, windows // size)]
    count = sum(len(key.positions) for key in keys)
    for each in by_name.values():
        each[keys[0]]
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in by_name}
    for _ in range(rounds):
        for name, each in by_name.items():
            took[name].append(seconds(lambda each=each: [each[key] for key in keys]))
    bare = statistics.median(processor for _, processor in took["without"]) / count
    batches = [by_name["without"][key] for key in keys]
    mouths = [m for b in batches for m in b["mouth"].numpy()]
    sounds = [a for b in batches for a in b["audio"].numpy()]
    click.echo(f"{count} windows of {length} frames, {CROP} pixels, {rounds} rounds; processor time")
    click.echo(f"| {'kind':14} | {'ms':>6} | windows/s | chance | adds to the loader |\n|---|---|---|---|---|")
    total = 0.0
    for kinds, examples in ((augment.PICTURE, mouths), (augment.SOUND, sounds)):
        for name, kind in kinds.items():
            spent = []
            for k, x in enumerate(examples):
                _, processor = seconds(lambda k=k, x=x, kind=kind: kind.change(x, np.random.default_rng(k)))
                spent.append(processor)
            mean = statistics.mean(spent)
            total += kind.chance * mean
            adds = 100 * kind.chance * mean / bare
            click.echo(f"| {name:14} | {1e3 * mean:6.2f} | {1 / mean:9.0f} | {kind.chance:6.2f} | {adds:16.0f} % |")
    click.echo(f"| sum by chance  | {1e3 * total:6.2f} | {1 / total:9.0f} |        | {100 * total / bare:16.0f} % |\n")
    for name, each in took.items():
        ms = [1e3 * processor / count for _, processor in each]
        speed = statistics.median(count / clock for clock, _ in each)
        told = f"{statistics.median(ms):5.2f} ms a window ({min(ms):.2f} to {max(ms):.2f}), {speed:.0f} windows/s"
        click.echo(f"loader {name:8} {told}")
    ratios = [b / a for (_, a), (_, b) in zip(took["without"], took["with"], strict=True)]
    click.echo(
        f"with over without x {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); "
        f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )
