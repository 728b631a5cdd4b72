"""Speed of the ways of computing `talknet`, in scoring and training: ratios measured in one run, A B A B.

    python -m benchmarks student
    python -m benchmarks student --compile --threads 2 --frames 75     # torch.compile too; it needs a C++ compiler

Every way differs from the first, which is what the project does, in one thing, and must give the same frame logits but
for rounding: the table says how far they are apart. Ratios are seconds of that way over seconds of the project's, round
by round (above 1: the project's is faster), by the clock and by processor time, which other work on the machine
disturbs less. Clips are noise.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import click
import torch
from torch import nn
from torch.nn import functional as F

from student.models import build, talknet_encoders
from student.models.talknet import TalkNet

OURS = "ours"
Inputs = tuple[torch.Tensor, torch.Tensor]


@dataclass
class Way:
    """A model, and what must be set while it runs."""

    model: TalkNet
    frames_at_once: int = talknet_encoders.FRAMES_AT_ONCE
    threads: int = 1


class FlatStem(nn.Module):
    """The stem's 3-D convolution as a 2-D one over five channels."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight[:, 0], stride=2, padding=3)


def channels_first(model: TalkNet) -> None:
    model.model.visualFrontend.layout = torch.contiguous_format


def flat_stem(model: TalkNet) -> None:
    stem = model.model.visualFrontend.frontend3D
    stem[0] = FlatStem(stem[0].weight)


def attention_with_weights(model: TalkNet) -> None:
    for layer in (model.model.crossA2V, model.model.crossV2A, model.model.selfAV):
        layer.need_weights = True


def compiled(model: TalkNet) -> None:
    model.model.visualFrontend.resnet.compile()


def ways(threads: int, compile_too: bool) -> dict[str, Way]:
    """Every way by name, the project's first, all with the same weights."""
    base = build("talknet", dropout=0.0)
    changes: dict[str, Callable[[TalkNet], None]] = {
        OURS: lambda model: None,
        "channels first": channels_first,
        "stem in 2-D": flat_stem,
        "attention not fused": attention_with_weights,
        "all frames at once": lambda model: None,
        "one thread": lambda model: None,
    }
    if compile_too:
        changes["torch.compile"] = compiled
    found = {}
    for name, change in changes.items():
        model = build("talknet", dropout=0.0)
        model.load_state_dict(base.state_dict())
        change(model)
        found[name] = Way(model, threads=1 if name == "one thread" else threads)
    found["all frames at once"].frames_at_once = 1 << 30
    return found


def timed(way: Way, work: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, tuple[float, float]]:
    """What the work gives, and its (clock, processor) seconds."""
    talknet_encoders.FRAMES_AT_ONCE = way.frames_at_once
    torch.set_num_threads(way.threads)
    clock, processor = time.perf_counter(), time.process_time()
    out = work()
    return out, (time.perf_counter() - clock, time.process_time() - processor)


def score(model: TalkNet, inputs: Inputs) -> torch.Tensor:
    """Frame logits of one clip after the other."""
    model.eval()
    with torch.no_grad():
        return torch.cat([model.streams(f[None], m[None]).frame_logits for f, m in zip(*inputs, strict=True)])


def step(model: TalkNet, inputs: Inputs) -> torch.Tensor:
    """Frame logits of the clips together in training, after the gradients of all parameters."""
    model.train()
    logits = model.streams(*inputs).frame_logits
    logits.square().mean().backward()
    model.zero_grad(set_to_none=True)
    return logits.detach()


def ratio(way: list[tuple[float, float]], ours: list[tuple[float, float]]) -> str:
    """Median and range by the clock, median by processor time."""
    clock, processor = ([a[k] / b[k] for a, b in zip(way, ours, strict=True)] for k in (0, 1))
    return f"{statistics.median(clock):.2f} ({min(clock):.2f} to {max(clock):.2f}), {statistics.median(processor):.2f}"


@click.command(epilog="Example: python -m benchmarks student")
@click.option("--frames", default=75, show_default=True, help="Of a clip.")
@click.option("--clips", default=2, show_default=True)
@click.option("--rounds", default=5, show_default=True, help="Turns of each way; a first one is not counted.")
@click.option("--threads", default=2, show_default=True)
@click.option("--compile", "compile_too", is_flag=True, help="torch.compile of the residual network too.")
@click.option("--training/--no-training", default=True, show_default=True, help="Training steps too.")
def main(frames: int, clips: int, rounds: int, threads: int, compile_too: bool, training: bool) -> None:
    """Print the table."""
    torch.manual_seed(0)
    every = ways(threads, compile_too)
    inputs = (
        torch.randint(0, 256, (clips, frames, 112, 112), dtype=torch.uint8),
        torch.randn(clips, 4 * frames, 13) * 10,
    )
    for kind, work in {"scoring": score, "training": step}.items():
        if kind == "training" and not training:
            continue
        # parts are for scoring, and compiling the backward pass takes minutes
        chosen = {
            n: w for n, w in every.items() if kind == "scoring" or n not in ("all frames at once", "torch.compile")
        }
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in chosen}
        logits = {}
        for k in range(rounds + 1):
            for name, way in chosen.items():
                logits[name], seconds = timed(way, lambda model=way.model, work=work: work(model, inputs))
                if k:
                    spent[name].append(seconds)
        took = statistics.median(clock for clock, _ in spent[OURS])
        click.echo(f"{kind}: ours {took:.2f} s, {clips * frames / took:.0f} frames/s")
        for name in list(chosen)[1:]:
            apart = float((logits[name] - logits[OURS]).abs().max() / logits[OURS].abs().max())
            shown = ratio(spent[name], spent[OURS])
            click.echo(f"  {name:20} x {shown} by processor time; logits apart {apart:.1e}")
    click.echo(
        f"{clips} clips of {frames} frames, {rounds} rounds, {threads} threads of {os.cpu_count()} cores; "
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    )
