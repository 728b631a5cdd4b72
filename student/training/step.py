"""One optimizer step over its micro-batches."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from student.config import TrainConfig
from student.run.state import State
from student.training.learner import Learner
from student.training.losses import Targets, total
from student.training.optimize import rate

LITE, TEXTURE = 2, 3  # versions of what a step does; count one up with every change that gives that part other weights


@dataclass(frozen=True)
class Stepped:
    """The result of a step: the mean over its micro-batches of the loss and of each term, the norm of the gradient
    before clipping, and the learning rate."""

    terms: dict[str, torch.Tensor]
    norm: torch.Tensor | float
    rate: float

    @property
    def loss(self) -> torch.Tensor:
        return self.terms["loss"]

    def line(self) -> dict[str, float]:
        """Values for a line of the log; reading them from a GPU waits for the step."""
        figures = {name: round(float(value), 5) for name, value in self.terms.items()}
        return {**figures, "grad_norm": round(float(self.norm), 4), "lr": self.rate}


def one_step(
    learner: Learner,
    config: TrainConfig,
    state: State,
    batches: Iterator[dict[str, torch.Tensor]],
    ends: Sequence[int],
    windows: int,
) -> Stepped:
    """Take the micro-batches that end at the positions `ends` of an epoch with `windows` windows, and update the
    weights once. Advances `state`."""
    accelerator, began = learner.accelerator, time.perf_counter()
    learner.model.train()
    sums: dict[str, torch.Tensor] = {}
    for end in ends:
        waited = time.perf_counter()
        batch = next(batches)
        state.seconds.loader += time.perf_counter() - waited
        batch = {name: value.to(accelerator.device, non_blocking=True) for name, value in batch.items()}
        torch.manual_seed(_seed(config.seed, state, accelerator.process_index))
        with nullcontext() if end == ends[-1] else accelerator.no_sync(learner.model):
            targets = Targets(**{name: batch[name] for name in Targets._fields if name in batch})
            more = () if targets.drawn is None else ((targets.drawn, targets.drawn_mask),)
            output = learner.model(batch["picture"], batch["audio"], batch["mask"], *more)
            loss, terms = total(output, targets, config.losses)
            accelerator.backward(loss / len(ends))
        for name, value in {"loss": loss, **terms}.items():
            sums[name] = sums.get(name, 0.0) + value.detach() / len(ends)
        state.position = end
    lr = config.lr * rate(config.schedule, state.epoch + state.position / windows, config.epochs, config.warmup)
    for group in learner.optimizer.param_groups:
        group["lr"] = lr
    norm = accelerator.clip_grad_norm_(learner.model.parameters(), config.clip_norm)
    learner.optimizer.step()
    learner.optimizer.zero_grad(set_to_none=True)
    if learner.average is not None:
        learner.average.update_parameters(learner.student)
    state.step += 1
    state.seconds.train += time.perf_counter() - began
    return Stepped(sums, norm, lr)


def method(config: TrainConfig) -> str:
    """What a step of such a run does, in versions; "" as in all releases. A run that began with another cannot go on as it
    began."""
    parts = [f"lite {LITE}"] if config.model.startswith("lite") else []
    return ", ".join([*parts, f"texture {TEXTURE}"] if config.data.pseudo_share else parts)


def _seed(seed: int, state: State, rank: int) -> int:
    """Seed of torch's generator (dropout) for a micro-batch: a function of its position in the run."""
    sequence = np.random.SeedSequence([seed, state.epoch, state.position, rank, 3])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)
