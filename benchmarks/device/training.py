"""Training steps of the students on a device: how far a step is from one in single precision on the CPU, and how fast."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from benchmarks.device import networks, timing
from benchmarks.device.forward import Work
from benchmarks.parts import Row
from student.config import LossConfig
from student.models import Output, build
from student.training.losses import Targets, total
from student.training.optimize import decay_groups

SIDE = 88  # pixels of the pictures that the loader gives
FEW = 4  # windows of the step that is compared


def batch(windows: int, frames: int, drawn: bool) -> dict[str, Tensor]:
    """What the loader gives for a batch, random: picture, audio and the fields of `Targets`."""
    draw = networks.drawn(5)
    picture, audio = networks.media(windows, frames)
    margin = (picture.shape[-1] - SIDE) // 2
    picture = picture[..., margin : margin + SIDE, margin : margin + SIDE].contiguous()
    face = torch.rand(windows, frames, generator=draw) < 0.95
    voice = torch.rand(windows, frames, generator=draw) < 0.8
    label = (torch.arange(windows) % 2).float()
    found = {
        "picture": picture,
        "audio": audio,
        "label": label,
        "label_weight": torch.ones(windows),
        "frame_label": label[:, None].repeat(1, frames),
        "mask": torch.ones(windows, frames, dtype=torch.bool),
        "soft": torch.rand(windows, windows, frames, generator=draw),
        "soft_mask": face[:, None] & voice[None, :],
        "clip": torch.arange(windows)[:, None].repeat(1, 2),
        "start": torch.zeros(windows, 2, dtype=torch.int64),
        "lips_rows": nn.functional.normalize(torch.randn(windows, frames, 32, generator=draw), dim=-1),
        "sound_rows": nn.functional.normalize(torch.randn(windows, frames, 32, generator=draw), dim=-1),
        "lips_mask": face,
        "sound_mask": voice,
    }
    if drawn:
        found |= {"drawn": picture, "drawn_mask": face, "drawn_forged": label[:, None].repeat(1, frames)}
        found["drawn_of"] = torch.full_like(label, -1, dtype=torch.int64)
    return found


class Step:
    """One student on a device with its optimizer, and the update that the trainer makes of a batch."""

    def __init__(self, name: str, device: torch.device, precision: str) -> None:
        kind, options = networks.STUDENTS[name]
        torch.manual_seed(0)
        self.model = build(kind, **options).to(device)
        self.optimizer = torch.optim.AdamW(decay_groups(self.model, 0.05), lr=1e-3)
        self.device, self.precision, self.config = device, precision, LossConfig(w_projection=1.0)

    def loss(self, given: dict[str, Tensor]) -> Tensor:
        """Of a batch on the device. The network runs in the precision, its outputs and the losses in single precision, as
        Accelerate has it."""
        targets = Targets(**{name: given[name] for name in Targets._fields if name in given})
        more = () if targets.drawn is None else ((targets.drawn, targets.drawn_mask),)
        with timing.precise(self.device, self.precision):
            out = self.model(given["picture"], given["audio"], given["mask"], *more)
        whole = Output(*(None if x is None else x.float() for x in out))
        return total(whole, targets, self.config)[0]

    def update(self, given: dict[str, Tensor]) -> None:
        """One step of the optimizer."""
        self.loss(given).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def gradient(self, given: dict[str, Tensor]) -> tuple[float, Tensor]:
        """Loss and gradient of all parameters, on the CPU, without dropout."""
        self.model.eval()
        loss = self.loss(given)
        loss.backward()
        parts = [p.grad.flatten().cpu() for p in self.model.parameters() if p.grad is not None]
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach()), torch.cat(parts)


def steps(device: str, names: Sequence[str], windows: Sequence[int], work: Work) -> Iterator[Row]:
    """A row for each student, precision and size of the batch."""
    on = torch.device(device)
    torch.use_deterministic_algorithms(True, warn_only=True)  # as the trainer has it
    for name in names:
        drawn = "texture" in name
        few = batch(min(FEW, *windows), work.frames, drawn)
        loss, gradient = Step(name, torch.device("cpu"), "fp32").gradient(few)
        for precision in ("fp32", "bf16"):
            step = Step(name, on, precision)
            near, slope = step.gradient({key: x.to(on) for key, x in few.items()})
            figures: dict[str, float | None] = {
                "loss apart": abs(near - loss) / abs(loss),
                "gradient's cosine": float(nn.functional.cosine_similarity(slope.double(), gradient.double(), dim=0)),
            }
            for count in windows:
                given = {key: x.to(on) for key, x in batch(count, work.frames, drawn).items()}
                figures |= speed(step, given, on, work, precision)
                yield Row(f"{name}, {precision}, {count} windows", figures)
                figures = {}


def speed(
    step: Step, given: dict[str, Tensor], on: torch.device, work: Work, precision: str
) -> dict[str, float | None]:
    """Windows a second, operations a second as a share of a matrix product's, and memory of updates on one batch."""

    def update() -> None:
        step.update(given)

    peak = timing.peak_mib(update, on)
    flops = timing.operations(update)
    spent = statistics.median(timing.seconds(update, on, work.rounds, min(2, work.rounds - 1)))
    most = timing.ceiling(on, work.product, timing.DTYPES[precision])
    return {
        "windows/s": len(given["label"]) / spent,
        "ms a step": 1000 * spent,
        "TFLOP/s": flops / spent / 1e12,
        "of ceiling": flops / spent / most,
        "MiB": peak,
    }
