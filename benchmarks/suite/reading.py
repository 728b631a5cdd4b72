"""Windows read from a store and from the formats of others, in turns on the same windows; and the loader by its processes."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

import store
from benchmarks.device import loading
from benchmarks.parts import Row
from benchmarks.speed import store_reading
from benchmarks.speed.store_reading import NAMES, Epoch, Place
from benchmarks.suite import rivals
from concord.errors import ConcordError

OURS, BARE, FLOOR = "concord-av store", "its bytes read, checked, decoded", "its codec alone, from memory"


class Different(ConcordError):
    """A way of reading gives other bytes than the store."""


def formats(store_rows: int, rounds: int) -> Iterator[Row]:
    """A row for each format: speed, processor time, size on disk, and ratios to the store and to its codec by processor time,
    round by round."""
    with tempfile.TemporaryDirectory(prefix="formats-") as name:
        folder = Path(name)
        reader = store_reading.build(folder / "s.zarr", store_rows, 25)
        places = one_of_each(reader)
        ways: dict[str, Epoch] = {
            OURS: store_reading.one_by_one(store_reading.our_reader(reader)),
            BARE: store_reading.one_by_one(store_reading.bare(reader)),
            FLOOR: store_reading.one_by_one(store_reading.codec_alone(reader)),
        }
        size: dict[str, float | None] = {
            OURS: sum(rivals.megabytes(folder / "s.zarr" / "frames" / array) for array in NAMES),
            BARE: None,
            FLOOR: None,
        }
        skipped = []
        few = places[: max(1, len(places) // 10)]
        expected = list(ways[OURS](few))
        if wrong := rivals.differences(expected, ways[BARE](few)):
            raise Different(f"{BARE}: {wrong[0]} is not what the store's reader gives")
        for way, made in rivals.ways().items():
            if isinstance(made, str):
                skipped.append(Row(way, {}, made))
                continue
            place = folder / way
            place.mkdir()
            ways[way] = made(reader, place)
            size[way] = rivals.megabytes(place)
            if wrong := rivals.differences(expected, ways[way](few)):
                raise Different(f"{way} gives other bytes than the store: {wrong[0]}")
        found = store_reading.measure(ways, places, rounds)
        for way, figures in found.items():
            yield Row(way, {**_compared(figures, found), "MB": size[way]})
        yield from skipped


def one_of_each(reader: store.Reader) -> list[Place]:
    """A window at a random place of every clip that is long enough, in random order."""
    rng, length = np.random.default_rng(1), np.asarray(reader.clips["length"])
    clips = rng.permutation(np.flatnonzero(length >= store_reading.WINDOW))
    return [(int(i), int(rng.integers(0, length[i] - store_reading.WINDOW + 1))) for i in clips]


def _compared(
    figures: Sequence[tuple[float, float]], found: dict[str, list[tuple[float, float]]]
) -> dict[str, float | None]:
    speeds = [speed for speed, _ in figures]

    def ratio(other: str, which: int) -> float:
        pairs = zip(figures, found[other], strict=True)
        return statistics.median(b[which] / a[which] if which else a[0] / b[0] for a, b in pairs)

    return {
        "windows/s": statistics.median(speeds),
        "least": min(speeds),
        "most": max(speeds),
        "CPU us": statistics.median(busy for _, busy in figures),
        "x ours": ratio(OURS, 1),
        "x floor": ratio(FLOOR, 1),
        "x ours by clock": ratio(OURS, 0),
    }


def workers(store_rows: int, counts: Sequence[int], windows: int, rounds: int) -> Iterator[Row]:
    """A row for each number of reading processes: windows a second of the trainer's loader, in turns."""
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory(prefix="workers-") as name:
        path = Path(name) / "s.zarr"
        store_reading.build(path, store_rows, 25, fit=True)
        batches = {count: loading.endless(str(path), windows, count, cpu) for count in counts}
        speeds: dict[int, list[float]] = {count: [] for count in counts}
        for turn in range(rounds + 1):
            for count in counts:
                speed = loading.rate(batches[count], windows, None, cpu)[0]
                if turn:
                    speeds[count].append(speed)
        for count, values in speeds.items():
            ratios = [a / b for a, b in zip(values, speeds[counts[0]], strict=True)]
            yield Row(
                f"{count} process{'es' * (count > 1)}" if count else "in the trainer's process",
                {
                    "windows/s": statistics.median(values),
                    "least": min(values),
                    "most": max(values),
                    f"x {counts[0]}": statistics.median(ratios),
                },
            )
