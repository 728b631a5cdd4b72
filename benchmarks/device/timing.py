"""Seconds, operations and memory of work on a device, and the most that its matrix products reach."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def precise(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context in which networks run in that precision, as the project runs them: by autocast, single precision as it is."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device, rounds: int, warm: int = 2) -> list[float]:
    """Seconds of each of `rounds` runs, after `warm` others."""
    for _ in range(warm):
        work()
    wait(device)
    spent = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        wait(device)
        spent.append(time.perf_counter() - begun)
    return spent


def operations(work: Callable[[], object]) -> float:
    """Floating-point operations of one run, two for each multiplication with its addition."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def peak_mib(work: Callable[[], object], device: torch.device) -> float | None:
    """MiB of the device's memory that one run holds at most, weights included; None on a CPU."""
    if device.type != "cuda":
        work()
        return None
    torch.cuda.reset_peak_memory_stats(device)
    work()
    wait(device)
    return torch.cuda.max_memory_allocated(device) / 2**20


def ceiling(device: torch.device, size: int, dtype: torch.dtype, rounds: int = 10) -> float:
    """Operations a second of the product of two square matrices: the best of `rounds`."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / min(seconds(lambda: left @ right, device, rounds, warm=3))
