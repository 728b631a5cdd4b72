"""Kills a training run at random steps and compares its result with that of an undisturbed run, bit by bit.

    python -m benchmarks resume --store grid.zarr --output runs/resume [--processes 2] [--kills 5]

Both runs have the same options; the killed one gets SIGKILL for all its processes once a step drawn by seed is in its
log, and resumes with --resume_from_checkpoint latest. Exit code 1 if a weight, a moment of the optimizer or the
detector differs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import load_file

from student import checkpoint, run_state

ROOT = Path(__file__).parents[2]
PATIENCE_S = 600


@click.command(epilog="Example: python -m benchmarks resume --store grid.zarr --output runs/resume")
@click.option("--store", "path", required=True)
@click.option("--output", required=True, type=click.Path(path_type=Path))
@click.option("--processes", type=click.IntRange(1, 2), default=2, show_default=True)
@click.option("--kills", default=5, show_default=True)
@click.option("--steps", default=40, show_default=True, help="Of the whole run.")
@click.option("--seed", default=0, show_default=True, help="Of the steps at which it is killed.")
def main(path: str, output: Path, processes: int, kills: int, steps: int, seed: int) -> None:
    """Say where the runs differ, or that they do not."""
    calm, killed = output / "calm", output / "killed"
    _wait(_start(path, calm, processes, steps))
    at = np.sort(np.random.default_rng(seed).choice(np.arange(2, steps), kills, replace=False)).tolist()
    for step in at:
        run = _start(path, killed, processes, steps)
        begun = time.monotonic()
        while run.poll() is None and _reached(killed) < step:
            if time.monotonic() - begun > PATIENCE_S:
                os.killpg(run.pid, signal.SIGKILL)
                raise click.ClickException(f"step {step} was not reached in {PATIENCE_S} s")
            time.sleep(0.02)
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        saved = run_state.checkpoints(killed)
        click.echo(
            f"killed at step {_reached(killed)} (drawn: {step}); goes on from {saved[-1].name if saved else 'the start'}"
        )
    _wait(_start(path, killed, processes, steps))
    first, second = _weights(calm), _weights(killed)
    different = [name for name in first if name not in second or not torch.equal(first[name], second[name])]
    if different or first.keys() != second.keys():
        raise click.ClickException(f"{len(different)} of {len(first)} tensors differ, such as {different[:3]}")
    click.echo(f"{processes} processes, {kills} kills: all {len(first)} tensors are bit-equal to the calm run's")


def _start(path: str, output: Path, processes: int, steps: int) -> subprocess.Popen:
    launcher = [str(Path(sys.executable).with_name("accelerate")), "launch"]
    launcher += ["--config_file", str(ROOT / "configs/cpu2.yaml")] if processes == 2 else []
    command = [*launcher, str(ROOT / "student/train.py"), "--store", path, "--output", str(output), "--cpu"]
    command += ["--epochs", "2", "--max-steps", str(steps), "--threads", "1", "--checkpointing_steps", "4"]
    command += ["--batch-size", "4", "--resume_from_checkpoint", "latest"]
    output.mkdir(parents=True, exist_ok=True)
    with open(output / "log.txt", "a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def _wait(run: subprocess.Popen) -> None:
    if run.wait():
        raise click.ClickException(f"a run ended with code {run.returncode}; its log.txt says why")


def _reached(output: Path) -> int:
    """The last step that the run's folder tells of: of its log (every tenth) or of its checkpoints (every fourth)."""
    saved = [int(p.name.removeprefix(run_state.PREFIX)) for p in run_state.checkpoints(output)]
    file = output / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return max([*saved, *(json.loads(line)["step"] for line in lines[-1:] if line.endswith("}"))], default=0)


def _weights(output: Path) -> dict[str, torch.Tensor]:
    last = run_state.checkpoints(output)[-1]
    moments = {f"optimizer {name}": value for name, value in load_file(last / "optimizer.safetensors").items()}
    detector = {f"detector {k}": v for k, v in load_file(output / checkpoint.MODEL_FILE).items()}
    return {**load_file(last / checkpoint.MODEL_FILE), **moments, **detector}
