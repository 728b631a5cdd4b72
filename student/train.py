"""Train a light detector from a store: `accelerate launch student/train.py --store STORE --output RUN`.

    python student/train.py --store /data/grid.zarr --output /tmp/tiny --max-steps 20        # a try on any CPU
    accelerate launch student/train.py --store /data/favc.zarr --output runs/favc --epochs 30 --mixed_precision bf16
    accelerate launch --config_file configs/gpus.yaml student/train.py --store /data/favc.zarr --output runs/favc
    accelerate launch --config_file configs/cpu2.yaml student/train.py ...                   # two CPU processes
    accelerate launch student/train.py ... --resume_from_checkpoint latest                   # resumes after any kill

This file is only the command: it turns options into a config and returns the exit code. The loop is in
student/training/trainer.py.
"""

# ruff: noqa: E402 - the path is corrected before the project's modules are imported

import os
import sys

# As a script, this file's folder is first on the path and its modules would shadow others: replace it by the parent.
_HERE = os.path.dirname(os.path.abspath(__file__))
if sys.path and os.path.abspath(sys.path[0] or os.getcwd()) == _HERE:
    sys.path[0] = os.path.dirname(_HERE)

import signal


def _ended(number: int, _: object) -> None:
    """A signal before there is anything to save ends the run immediately, without a traceback."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _ended)
    signal.signal(signal.SIGTERM, _ended)
    from concord.early import explain_missing

    explain_missing()

import logging
from pathlib import Path
from typing import Any

import click

from concord.command import log_to_stderr, say
from concord.errors import ConcordError
from concord.sections import Sectioned
from store.dataset.spans import TRIMS
from store.output import check_folder
from student import recipes
from student.config import (
    BALANCES,
    KEEPS,
    LABELS,
    PRECISIONS,
    PRESETS,
    PROJECTION,
    SCHEDULES,
    ConfigError,
    DataConfig,
    LossConfig,
    TrainConfig,
    read_options,
)

log = logging.getLogger("student")

SECTIONS = {
    "Main options": ("store", "output", "config", "model", "epochs", "batch_size", "lr", "seed", "splits"),
    "Start, end and resume": (
        "init_from", "resume_from_checkpoint", "max_steps", "patience", "keep", "checkpointing_steps", "keep_checkpoints",
    ),
    "Windows and made pairs": (
        "window", "trim", "labels", "balance", "pair_share", "swap_share", "pseudo_share", "min_fake_shift", "max_shift",
        "augment", "buffer",
    ),
    "Terms of the loss": (
        "losses", "w_detection", "w_correlation", "w_contrastive", "w_projection", "temperature", "confidence",
    ),
    "Optimizer": ("weight_decay", "schedule", "warmup", "ema", "clip_norm", "gradient_accumulation_steps"),
    "Machine": ("mixed_precision", "num_workers", "threads", "compile", "cpu"),
    "Tracking": ("with_tracking", "report_to"),
}  # fmt: skip
FIRST = int(os.environ.get("RANK", "0")) == 0  # the process that prints for all


class TrainingFailed(ConcordError):
    """A run failed after it began; running it again continues from its last checkpoint."""

    exit_code = 1


class Alone(TrainingFailed):
    """The same, for a reason that does not affect the other processes of the run."""


def option(name: str, *more: Any, **how: Any) -> Any:
    """A click option that is accepted with dashes and, as in accelerate's own examples, with underscores."""
    spellings = dict.fromkeys([name, name.replace("_", "-"), "--" + name[2:].replace("-", "_")])
    how.setdefault("show_default", how.get("default") is not None)
    return click.option(*spellings, name[2:].replace("-", "_"), *more, **how)


def _from_file(context: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    if path is not None:
        try:
            path = recipes.find(path)
            values = read_options(path)
        except ConfigError as error:
            raise click.UsageError(str(error)) from error
        known = {p.name for p in context.command.params if p.expose_value}
        for name in ("exclude", "picture"):  # in a run's config.json, but not options
            values.pop(name, None)
        unknown = sorted(set(values) - known)
        if unknown:
            raise click.UsageError(f"{path} sets {unknown[0]}, which is not an option of this command")
        context.default_map = {**(context.default_map or {}), **values}
    return path


@click.command(cls=Sectioned, sections=SECTIONS)
@click.option("--config", type=click.Path(path_type=Path), is_eager=True, expose_value=False, callback=_from_file,
              help="Options from a file: a run's config.json, or YAML; or the name of a recipe (concord configs). "
                   "The command line wins.")  # fmt: skip
@option("--store", required=True, help="Folder or URL (s3://, gs://) of the store that precompute.py wrote.")
@option(
    "--output", required=True, help="Folder for the detector, checkpoints, metrics.jsonl, config.json, results.json."
)
@option("--model", default=TrainConfig.model, help="Student: lite, lite-causal (for streams) or talknet (the paper's).")
@option("--init-from", help="Start from weights: .pt, .pth, .model, .npz, .safetensors, or a run's folder.")
@option("--splits", help="CSV or Parquet of id, split, weight instead of the store's own split column.")
@option(
    "--epochs",
    default=TrainConfig.epochs,
    help="Passes over the training clips; the learning rate's schedule spans them.",
)
@option("--max-steps", type=int, help="Stop after this many steps; the schedule still spans the epochs.")
@option(
    "--labels",
    type=click.Choice(LABELS),
    default=DataConfig.labels,
    help="Labels of pairs: the teachers' similarity of content, or sync = 1 for a clip's own sound in time, else 0.",
)
@option("--batch-size", default=DataConfig.batch_size, help="Windows per process and micro-batch.")
@option("--lr", default=TrainConfig.lr, help="Highest learning rate (AdamW).")
@option("--weight-decay", default=TrainConfig.weight_decay)
@option(
    "--schedule",
    type=click.Choice(SCHEDULES),
    default=TrainConfig.schedule,
    help="Schedule of the learning rate: warm-up and a cosine to 0, or the paper's factor 0.95 per epoch.",
)
@option(
    "--ema",
    default=TrainConfig.ema,
    help="Keep a running average of the weights with this decay, e.g. 0.999; 0 = none.",
)
@option(
    "--patience", default=TrainConfig.patience, help="End after this many epochs without a better detector; 0 = never."
)
@option(
    "--keep",
    type=click.Choice(KEEPS),
    default=TrainConfig.keep,
    help="The detector that is kept: of the best epoch by validation, or of the last, where validation is small.",
)
@option("--warmup", default=TrainConfig.warmup, help="Share of the run in which the learning rate increases.")
@option("--clip-norm", default=TrainConfig.clip_norm, help="Clip the gradient to this norm.")
@option("--seed", default=TrainConfig.seed)
@option("--window", default=DataConfig.window, help="Largest number of frames (1/25 s) in a window.")
@option(
    "--trim",
    type=click.Choice(TRIMS),
    default=DataConfig.trim,
    help="What is trimmed in addition to clip ends: all before the first voice (leading), after the last one too (speech).",
)
@option(
    "--losses",
    type=click.Choice(PRESETS),
    default=LossConfig.preset,
    help="Forms of the three terms; paper = exactly as published, talknet too.",
)
@option("--w-detection", default=LossConfig.w_detection, help="Weight of the real/fake term; 0 = off.")
@option("--w-correlation", default=LossConfig.w_correlation, help="Weight of the soft-label term; 0 = off.")
@option(
    "--w-contrastive",
    type=float,
    help=f"Weight of the contrastive term; 0 = off. [default: {LossConfig.w_contrastive}; paper 1]",
)
@option(
    "--w-projection",
    type=float,
    help="Weight of the term that pulls each stream's embedding to its teacher's row; 0 = off. "
    f"[default: {PROJECTION:g}; 0 with --w-correlation 0 or --losses paper]",
)
@option("--temperature", default=LossConfig.temperature, help="Temperature of the contrastive term.")
@option(
    "--confidence",
    default=LossConfig.confidence,
    help="Weight soft labels p in the correlation term by |2 p - 1| to this power, so that unsure labels count less; 0 = off.",
)
@option(
    "--balance",
    type=click.Choice(BALANCES),
    default=DataConfig.balance,
    help="Windows of an epoch: as many of each clip as it holds, or equally many of each source (and method, of forgeries).",
)
@option("--pair-share", default=DataConfig.pair_share, help="Share of real windows that get another sound or a shift.")
@option("--swap-share", default=DataConfig.swap_share, help="Share of those that get another clip's sound.")
@option(
    "--pseudo-share",
    default=DataConfig.pseudo_share,
    help="Pseudo-fakes made of a real window, on average, to teach how redrawn mouths look; 0 = no branch for it.",
)
@option("--min-fake-shift", default=DataConfig.min_fake_shift, help="Smallest shift, in frames, that counts as fake.")
@option("--max-shift", default=DataConfig.max_shift, help="Largest shift, in frames.")
@click.option(
    "--augment/--no-augment",
    show_default=True,
    default=DataConfig.augment,
    help="Vary crop, light, sharpness, codec, noise, room and level in training.",
)
@option(
    "--buffer",
    default=DataConfig.buffer,
    help="Windows shuffled together; a larger value reads from more shards at a time.",
)
@option(
    "--num-workers", default=TrainConfig.num_workers, help="Reading processes; -1 = 0 on a CPU, 4 on a GPU; 0 = none."
)
@option(
    "--threads", default=TrainConfig.threads, help="Threads per process; 0 = OMP_NUM_THREADS or its share of the cores."
)
@option("--mixed_precision", type=click.Choice(PRECISIONS), help="Default: the setting of accelerate launch, else no.")
@option("--gradient_accumulation_steps", default=TrainConfig.gradient_accumulation_steps)
@option(
    "--checkpointing_steps",
    default=TrainConfig.checkpointing_steps,
    help='Number of steps between checkpoints, or "epoch".',
)
@option("--keep-checkpoints", default=TrainConfig.keep_checkpoints, help="Number of newest checkpoints to keep.")
@option("--resume_from_checkpoint", help='Resume from this checkpoint of --output, or from its "latest".')
@option("--compile", is_flag=True, help="Compile the student with torch.compile: slow at first, then faster steps.")
@option("--with_tracking", is_flag=True, help="Write losses and validation figures for a tracker.")
@option(
    "--report_to",
    default=TrainConfig.report_to,
    help="Tracker: tensorboard, wandb, or another that Accelerate supports.",
)
@option("--cpu", is_flag=True, help="Do not use a GPU.")
def main(*, resume_from_checkpoint: str | None, **options: Any) -> int:
    """Train a detector on the windows, soft labels and on-the-fly pairs of a store.

    Example: accelerate launch student/train.py --store grid.zarr --output runs/grid --epochs 20
    """
    options["mixed_precision"] = options["mixed_precision"] or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    before = [(number, signal.signal(number, _ended)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        return _train(resume_from_checkpoint, options)
    except ConcordError as error:
        if not FIRST and not isinstance(error, Alone):
            sys.exit(error.exit_code)  # the first process has the same error and prints it
        raise
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _train(resume: str | None, options: dict[str, Any]) -> int:
    """The exit code: 0, or 128 + signal after a clean stop."""
    log_to_stderr()
    log.setLevel(logging.INFO if FIRST else logging.ERROR)
    from student.models import MODELS
    from student.training.launch import warn_of_one_process
    from student.training.trainer import Trainer

    if options["model"] not in MODELS:
        raise ConfigError(f"unknown model {options['model']}; there is {', '.join(sorted(MODELS))}")
    config = TrainConfig.from_options(**options)
    check_folder(config.output, "the run")
    warn_of_one_process()
    try:
        trainer = Trainer(config, resume)
    except ConcordError:
        raise
    except Exception as error:
        raise _failed(error) from error
    try:
        code = trainer.run()
    except Exception as error:
        raise _failed(error) from error
    if FIRST and code:
        say(f"stopped by signal {code - 128}; state saved: continue with --resume_from_checkpoint latest", err=True)
    elif FIRST:
        say(trainer.outputs.next_step())
    return code


def _failed(error: Exception) -> ConcordError:
    """The failure of a run that had begun, as an error with exit code 1; for this process alone unless all have it."""
    from student.checkpoint import SaveError
    from student.scoring.score import ScoreError
    from student.training.watch import Diverged

    if isinstance(error, (SaveError, ScoreError, Diverged)):
        return error
    lines = str(error).strip().splitlines() or ["no message"]
    name = type(error).__name__
    if name == "StoreError":  # from a reading process it includes that process's traceback
        return Alone(lines[-1].removeprefix("store.layout.StoreError: "))
    torn = ("onnection closed by peer", "onnection reset", "NCCL", "gloo", "Broken pipe")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and any(word in str(error) for word in torn):
        return TrainingFailed(
            "another process of this run ended, so this one cannot continue; the last line of that process says why"
        )
    return Alone(str(error) if isinstance(error, OSError) else f"{name}: {lines[-1]}")


if __name__ == "__main__":
    main()
