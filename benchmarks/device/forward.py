"""Networks on a device: how far their rows are from those of single precision on the CPU, and how fast they come."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.device import networks, timing
from benchmarks.device.networks import Network
from benchmarks.parts import Row
from concord.frames import FPS

FEW = 2  # clips whose rows are compared


@dataclass(frozen=True)
class Work:
    """How much is measured: `clips` of `frames` at once, `rounds` times; `product`: the size of the matrix product that is the
    ceiling."""

    clips: int
    frames: int
    rounds: int
    product: int


def products(device: str, sizes: Sequence[int]) -> Iterator[Row]:
    """The matrix products that everything else is held against."""
    on = torch.device(device)
    for size in sizes:
        for name, dtype in timing.DTYPES.items():
            if device == "cpu" and name == "fp16":
                continue  # no kernel of its own there
            yield Row(f"{size} x {size}, {name}", {"TFLOP/s": timing.ceiling(on, size, dtype) / 1e12})


def teachers(device: str, kind: str, sizes: Sequence[str], work: Work) -> Iterator[Row]:
    """Rows of the networks of one kind, in the precisions that matter: bf16, and fp16, in which teachers run on CUDA."""
    for size in sizes:
        network = networks.whisper(size) if kind == "whisper" else networks.avhubert(size)
        yield from rows_of(network, device, ("fp32", "fp16", "bf16"), work)


def students(device: str, names: Sequence[str], work: Work) -> Iterator[Row]:
    """Rows of the students, scoring."""
    for name in names:
        yield from rows_of(networks.student(name), device, ("fp32", "bf16"), work)


def rows_of(network: Network, device: str, precisions: Sequence[str], work: Work) -> Iterator[Row]:
    """One row for each precision: agreement with single precision on the CPU, speed, share of the ceiling, memory."""
    on = torch.device(device)
    with torch.inference_mode():
        few = network.inputs(min(FEW, work.clips), work.frames)
        expected = network.forward(network.model, *few)
        model = network.model.to(on)
        given = tuple(x.to(on) for x in network.inputs(work.clips, work.frames))
        for precision in precisions:
            if device == "cpu" and precision == "fp16":
                continue

            def forward(inputs: tuple[Tensor, ...] = given, precision: str = precision) -> dict[str, Tensor]:
                with timing.precise(on, precision):
                    return network.forward(model, *inputs)

            found = forward(tuple(x.to(on) for x in few))
            figures = speed(forward, on, work, precision)
            for k, (name, values) in enumerate(agreement(found, expected).items()):
                yield Row(f"{network.name}, {precision}, {name}", {**values, **({} if k else figures)})


def agreement(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """Of each output [n, dim]: the largest and the mean difference, relative to the largest and the mean size, and the least
    and the mean cosine of two rows (of one column: of all rows together)."""
    figures = {}
    for name, wanted in expected.items():
        got, wanted = found[name].float().cpu(), wanted.float()
        apart = (got - wanted).abs()
        pairs = (got.T, wanted.T) if wanted.shape[1] == 1 else (got, wanted)
        cosine = torch.nn.functional.cosine_similarity(*(x.double() for x in pairs), dim=1)
        figures[name] = {
            "max apart": float(apart.max() / wanted.abs().max()),
            "mean apart": float(apart.mean() / wanted.abs().mean()),
            "least cosine": float(cosine.min()),
        }
    return figures


def speed(forward: Callable[[], object], on: torch.device, work: Work, precision: str) -> dict[str, float | None]:
    """Frames a second, as seconds of video a second, operations a second as a share of a matrix product's, memory."""
    peak = timing.peak_mib(forward, on)
    flops = timing.operations(forward)
    spent = statistics.median(timing.seconds(forward, on, work.rounds, min(2, work.rounds - 1)))
    most = timing.ceiling(on, work.product, timing.DTYPES[precision])
    rate = work.clips * work.frames / spent
    return {
        "frames/s": rate,
        "x real time": rate / FPS,
        "TFLOP/s": flops / spent / 1e12,
        "of ceiling": flops / spent / most,
        "MiB": peak,
    }
