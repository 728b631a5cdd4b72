"""What a corpus costs as it grows, with made-up rows: planning, opening for training, and the memory of either.

Each size and step runs in a process of its own, whose peak memory is taken. Clips last one second (25 rows, one chunk).
Their flags are stored, which the start of training reads; pictures and sound are not, since nothing here reads them.
Planning is what `precompute.py` does before the first clip is decoded, without reading headers: rows with their groups,
slots, batches, the manifest, the table of clips and the ledger. The start of training is `student.training.plan` and the
order of the first epoch.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parts import Row
from concord.errors import ConcordError

FRAMES = 25  # of a clip
PEOPLE = 1000
CODE = "import sys; from benchmarks.suite import growing; growing.say(*sys.argv[1:])"


class Broken(ConcordError):
    """A step of a size ended with an error."""


def sizes(counts: Sequence[int]) -> Iterator[Row]:
    """A row for each number of clips: seconds by the clock and of the processor, and MiB of the process at most."""
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="growing-") as folder:
            path = str(Path(folder) / "s.zarr")
            planned, _, started = (_apart(step, count, path) for step in ("planned", "filled", "started"))
        yield Row(
            f"{count:,} clips",
            {
                "planning s": planned["clock"],
                "CPU s": planned["processor"],
                "MiB": planned["mib"],
                "KiB/clip": 1024 * (planned["mib"] - planned["mib before"]) / count,
                "start s": started["clock"],
                "start CPU s": started["processor"],
                "start MiB": started["mib"],
                "start KiB/clip": 1024 * (started["mib"] - started["mib before"]) / count,
            },
        )


def _apart(step: str, count: int, path: str) -> dict[str, float]:
    """The figures of a step, measured in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run(
        [sys.executable, "-c", CODE, step, str(count), path], capture_output=True, text=True, env=environment
    )
    if run.returncode:
        said = (run.stderr.strip().splitlines() or ["no message"])[-1]
        raise Broken(f"{step} with {count} clips ended with exit code {run.returncode}: {said[:200]}")
    found: dict[str, float] = json.loads(run.stdout)
    return found


def say(step: str, count: str, path: str) -> None:
    """Print the figures of a step as JSON."""
    work = {"planned": _planned, "filled": _filled, "started": _started}[step]
    ready = work(int(count), path)
    before, clock, processor = _mib(), time.perf_counter(), time.process_time()
    ready()
    spent = {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}
    print(json.dumps({**spent, "mib": _mib(), "mib before": before}))


def _mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _planned(count: int, path: str) -> Any:
    """Planning; the store is left without frames."""
    import store
    from pipelines.corpora import manifest
    from pipelines.job.books import Books
    from pipelines.job.usage import Summary
    from pipelines.workers import plan

    writer = store.create(path, {"asr": 384, "vsr": 80}, {"held_pictures": True})

    def work() -> None:
        rows = [
            manifest.Row(f"/made/{k // 1000:04}/{k:07}.mp4", label=0, identities=(f"person {k % PEOPLE}",))
            for k in range(count)
        ]
        rows = manifest.complete(rows, "made", Path("/made"))
        slots = plan.place([(k, FRAMES) for k in range(count)], 0)
        made = sum(len(plan.batches(group)) for group in plan.groups(slots))
        assert made >= count // plan.BATCH_CLIPS
        books = Books(writer, store.open(path), [], Summary())
        books.append(rows, slots, [])
        writer.grow_rows(plan.num_rows(slots))
        books.write_ledger()

    return work


def _filled(count: int, path: str) -> Any:
    """The state after precompute: flags of every row, every clip done."""
    import store
    from store import layout

    writer = store.Writer.open(path)

    def work() -> None:
        block = writer.blank_shard(["flags", "fake"])
        block["fake"][:] = 0
        block["flags"][:] = layout.IN_USE | layout.AUDIO_PRESENT | layout.FACE_DETECTED | layout.VOICE_ACTIVE
        for shard in range(writer.num_rows // writer.shard_rows):
            writer.write_shard(shard, block)
        writer.write_clips(0, {"length": np.full(count, FRAMES, "i4"), "done": np.ones(count, "u1")})
        writer.consolidate()

    return work


def _started(count: int, path: str) -> Any:
    """The start of training without soft labels, up to the order of the first epoch."""
    from student.config import LossConfig, TrainConfig
    from student.data.order import epoch_order
    from student.training.plan import Plan

    config = TrainConfig(path, "", losses=LossConfig(w_correlation=0.0, w_contrastive=0.0))

    def work() -> None:
        plan = Plan.of(config, None)
        assert len(epoch_order(plan.corpus, plan.data, 0, 0)) > count // 2

    return work
