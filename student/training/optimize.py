"""Optimization: weight decay, the learning rate's schedule, and the running average of the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

PAPER_FACTOR = 0.95  # per epoch; from golden figures of the published loop (arXiv 2404.19171's code)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels; none for norms, biases and scalars."""
    parts: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for p in model.parameters():
        parts[p.ndim < 2].append(p)
    return [{"params": parts[0], "weight_decay": weight_decay}, {"params": parts[1], "weight_decay": 0.0}]


def rate(schedule: str, epochs_done: float, epochs: int, warmup: float) -> float:
    """Share of the highest learning rate after `epochs_done` of `epochs`: a function of progress only.

    cosine: linear for the share `warmup` of the run, then a cosine to 0. paper: times 0.95 after every epoch.
    """
    if schedule == "paper":
        return PAPER_FACTOR ** int(epochs_done)
    done = epochs_done / epochs
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warmup) / (1 - warmup))))


def average(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of a model's weights; buffers are the model's own.

    The first steps average over fewer updates: the decay is at most (1 + n) / (10 + n) after n updates.
    """

    def step(mean: torch.Tensor, value: torch.Tensor, n: torch.Tensor | int) -> torch.Tensor:
        now = min(decay, (1 + float(n)) / (10 + float(n)))
        return torch.lerp(value, mean, now)

    return AveragedModel(model, avg_fn=step, use_buffers=False)
