"""The trainer's loader against the trainer's step: whether reading a store keeps a device busy.

The store is made of random pictures and sound, compressed as any other; its windows are augmented and compared as in
training. The loader alone, the step alone on one batch that stays on the device, and both together, as they train.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.device import timing
from benchmarks.device.networks import drawn
from benchmarks.device.training import Step
from benchmarks.parts import Row

Batches = Iterator[dict[str, Tensor]]


def material(frames: int = 150) -> tuple[Tensor, Tensor]:
    """Grey frames u1 [frames, 288, 360], smooth in space and time, and sound i2 [frames, 640] of noise."""
    rough = torch.randn(1, 1, frames // 5 + 2, 36, 45, generator=drawn(6))
    smooth = torch.nn.functional.interpolate(rough, (frames, 288, 360), mode="trilinear", align_corners=False)[0, 0]
    grain = torch.randn(smooth.shape, generator=drawn(7))
    sound = torch.randn(frames, 640, generator=drawn(8)) * 2000
    return (128 + 40 * smooth + 2 * grain).clamp(0, 255).to(torch.uint8), sound.to(torch.int16)


def rows(
    device: str,
    names: Sequence[str],
    windows: int,
    workers: Sequence[int],
    store_rows: int,
    count: int = 12,
    threads: int = 0,
) -> Iterator[Row]:
    """A row for each number of reading processes and each student, over `count` batches; `threads`: of the step (0: torch's
    choice)."""
    from benchmarks.speed.store_reading import build

    on = torch.device(device)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_num_threads(threads or torch.get_num_threads())
    with tempfile.TemporaryDirectory(prefix="loading-") as folder:
        path = Path(folder) / "s.zarr"
        frames, sound = material()
        build(path, store_rows, 25, material=(frames.numpy(), sound.numpy()), fit=True)
        for readers in workers:
            batches = endless(str(path), windows, readers, on)
            alone = rate(batches, windows, None, on, count)[0]
            for name in names:
                step = Step(name, on, "bf16" if device == "cuda" else "fp32")
                given = {key: x.to(on) for key, x in next(batches).items()}
                spent = statistics.median(timing.seconds(lambda s=step, g=given: s.update(g), on, min(5, count), 1))
                together, waited = rate(batches, windows, step, on, count)
                yield Row(
                    f"{name}, {readers} readers, {windows} windows",
                    {
                        "loader windows/s": alone,
                        "step windows/s": windows / spent,
                        "loader over step": alone * spent / windows,
                        "together windows/s": together,
                        "waiting": waited,
                    },
                    "the step waits for the loader" if alone * spent < windows else "the loader is faster",
                )


def endless(path: str, windows: int, workers: int, on: torch.device) -> Batches:
    """Batches of the trainer's own loader, epoch after epoch."""
    from student.config import DataConfig, TrainConfig
    from student.data.dataset import Keys, Windows, loader
    from student.training.plan import Plan

    config = TrainConfig(path, "", data=DataConfig(batch_size=windows))
    plan = Plan.of(config, None)
    keys = Keys(plan.corpus, plan.data, 0, 0, 1)
    made = Windows(path, plan.corpus, plan.data, 0, True, (1.0, 1.0))
    batches = loader(made, keys, workers, pin_memory=on.type == "cuda")
    for epoch in itertools.count():
        keys.epoch = epoch
        yield from batches


def rate(batches: Batches, windows: int, step: Step | None, on: torch.device, count: int = 12) -> tuple[float, float]:
    """Windows a second of so many batches, and the share of the time that was spent waiting for them; with `step` each
    goes to the device and is learned from."""
    waiting = 0.0
    next(batches)  # the first of a set of reading processes takes seconds
    begun = time.perf_counter()
    for _ in range(count):
        asked = time.perf_counter()
        given = next(batches)
        waiting += time.perf_counter() - asked
        if step is not None:
            step.update({key: x.to(on, non_blocking=True) for key, x in given.items()})
    timing.wait(on)
    spent = time.perf_counter() - begun
    return windows * count / spent, waiting / spent
