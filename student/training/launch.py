"""Setup of a training process: its device and tracker, its share of the cores; and work that one process does for
all."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TypeVar

import accelerate
import torch
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedType, LoggerType, gather_object

from concord import extras
from concord.errors import ConcordError
from student.checkpoint import first
from student.config import ConfigError, TrainConfig

log = logging.getLogger("student")

Result = TypeVar("Result")

TRACKING = "tracking"  # folder of TensorBoard's files in that of the run
SPREAD = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


def accelerator(config: TrainConfig) -> accelerate.Accelerator:
    """Raises ConfigError if the tracker is not installed (Accelerate would only warn), or if weights would be sharded over
    the processes, because one process writes the checkpoints."""
    if config.with_tracking:
        _check_tracker(config.report_to)
    made = accelerate.Accelerator(
        cpu=config.cpu or not torch.cuda.is_available(),
        mixed_precision=config.mixed_precision,
        log_with=config.report_to if config.with_tracking else None,
        project_dir=config.output,
    )
    if made.distributed_type in SPREAD:
        raise ConfigError(
            f"accelerate is configured for {made.distributed_type.value}, which this trainer does not support; "
            "use one of those that `concord configs` lists"
        )
    return made


def _check_tracker(name: str) -> None:
    known = LoggerType.list()
    if name not in known:
        raise ConfigError(f"--report_to {name} is not a tracker that Accelerate supports; there is {', '.join(known)}")
    there = {str(one) for one in get_available_trackers()}
    if name not in there and not (name == "all" and there):
        how = extras.install("tracking") if name in ("all", "tensorboard") else f"pip install {name}"
        raise ConfigError(f"--report_to {name}: its package is not installed, so nothing was begun: {how}")


def start_tracking(accelerator: accelerate.Accelerator, config: TrainConfig) -> None:
    """Start the tracker that is asked for, if any, in the main process: TensorBoard's files go to OUTPUT/tracking, those of
    Weights & Biases to OUTPUT/wandb. Raises ConfigError in all processes if it cannot start."""
    if not config.with_tracking:
        return
    options = {k: v for k, v in config.options().items() if isinstance(v, int | float | str)}
    project = TRACKING if config.report_to in ("all", "tensorboard") else "concord-av"
    how = {"wandb": {"dir": config.output, "name": os.path.basename(os.path.abspath(config.output))}}

    def start() -> None:
        try:
            accelerator.init_trackers(project, config=options, init_kwargs=how)
        except Exception as error:  # each tracker has its own
            more = "; log in with wandb login, or set WANDB_MODE=offline" if config.report_to == "wandb" else ""
            raise ConfigError(f"--report_to {config.report_to} could not start: {first(error)}{more}") from error

    by_main(accelerator, start, raises=ConfigError)


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


def warn_of_one_process() -> None:
    """Detects that `accelerate launch --cpu --num_processes 2` silently started one process: it prepares an address for
    several processes, and then runs the script once."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    if launched and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        log.warning(
            "several processes were asked for, but accelerate started one: use --config_file configs/cpu2.yaml "
            '("$(concord configs cpu2)" without a checkout), or torchrun --nproc_per_node 2 -m student.train'
        )
