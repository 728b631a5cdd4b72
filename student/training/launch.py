"""Setup of a training process: its device and tracker, its share of the cores; and work that one process does for
all."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import accelerate
import torch
from accelerate.utils import DistributedType, gather_object

from concord import extras
from concord.errors import ConcordError
from student.config import ConfigError, TrainConfig

Result = TypeVar("Result")

SPREAD = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


def accelerator(config: TrainConfig) -> accelerate.Accelerator:
    """Raises ConfigError if the tracker is not installed (Accelerate would silently continue), or if weights would be
    sharded over the processes, because one process writes the checkpoints."""
    try:
        made = accelerate.Accelerator(
            cpu=config.cpu or not torch.cuda.is_available(),
            mixed_precision=config.mixed_precision,
            log_with=config.report_to if config.with_tracking else None,
            project_dir=config.output,
        )
    except ValueError as error:
        if not config.with_tracking:
            raise
        raise ConfigError(f"--report_to {config.report_to} is not a tracker that Accelerate supports") from error
    if made.distributed_type in SPREAD:
        raise ConfigError(
            f"accelerate is configured for {made.distributed_type.value}, which this trainer does not support; "
            "use one of those that `concord configs` lists"
        )
    if config.with_tracking and not made.log_with:
        more = (
            f"; tensorboard needs tensorboardX: {extras.install('tracking')}"
            if config.report_to == "tensorboard"
            else ""
        )
        raise ConfigError(f"--report_to {config.report_to}: its package is not installed{more}")
    return made


def set_threads(wanted: int) -> int:
    """Threads of this process: as requested, else OMP_NUM_THREADS, else its share of the cores."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    threads = wanted or int(os.environ.get("OMP_NUM_THREADS", "0")) or max(1, cores // processes)
    torch.set_num_threads(threads)
    return threads


def by_main(
    accelerator: accelerate.Accelerator, work: Callable[[], Result], raises: type[ConcordError]
) -> Result | None:
    """The result of `work` in the main process, None in the others. If it raises an error of that kind, all processes
    raise it."""
    result, problem = None, None
    if accelerator.is_main_process:
        try:
            result = work()
        except raises as error:
            problem = str(error)
    problem = gather_object([problem])[0]
    if problem:
        raise raises(problem)
    return result
