"""Precompute as a whole against the naive loop, on copies of the clips that the project ships, or on a corpus."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.parts import Row
from benchmarks.speed import precompute
from benchmarks.speed.store_reading import CLIPS

NAIVE = "naive loop"


def against_naive(corpus: str | None, clips: int, num_naive: int, workers: Sequence[int]) -> Iterator[Row]:
    """A row for the naive loop, which runs before and after the others, and one for each number of workers a stage.

    "working" leaves out what a run takes before its first clip: it is the rate once face workers have started.
    """
    with tempfile.TemporaryDirectory(prefix="whole-") as name:
        folder = Path(name)
        corpus = corpus or copied(folder / "videos", clips)
        naive = [precompute.naive(corpus, num_naive, _made(folder / "before"))]
        runs = [(count, *precompute.pipeline(corpus, clips, count, folder)) for count in workers]
        naive.append(precompute.naive(corpus, num_naive, _made(folder / "after")))
    slow = num_naive / statistics.mean(naive)
    rates = [num_naive / seconds for seconds in naive]
    yield Row(NAIVE, {"clips/s": slow, "least": min(rates), "most": max(rates), "x naive": 1.0}, f"{num_naive} clips")
    for count, seconds, report in runs:
        face = report["stages"]["face"]
        working = clips / (face["present_s"] / face["workers"])
        stages = ", ".join(f"{stage} {each['ms_a_frame']:.2f}" for stage, each in report["stages"].items())
        yield Row(
            f"precompute, {count} a stage",
            {
                "clips/s": clips / seconds,
                "x naive": clips / seconds / slow,
                "working": working,
                "working x": working / slow,
            },
            f"{clips} clips; ms a frame: {stages}",
        )


def copied(folder: Path, count: int) -> str:
    """A corpus of so many clips: the shipped ones, again and again."""
    there = sorted(CLIPS.glob("*.mp4"))
    for k in range(count):
        source = there[k % len(there)]
        (folder / "real" / f"person{k % 40}").mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / "real" / f"person{k % 40}" / f"{k:04}-{source.name}")
    return f"folder:{folder}"


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
