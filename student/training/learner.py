"""The trained parts: the student as Accelerate wraps it, its optimizer, and the running average of its weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.swa_utils import AveragedModel

from student.config import TrainConfig
from student.models import PAPER, build, weights
from student.models.weights import Loaded
from student.training.optimize import average, decay_groups

log = logging.getLogger(__name__)

TEXTURE_WIDTH = 32  # of the texture branch; 8 were as good on people and forgeries not met, within noise


@dataclass
class Learner:
    """`model` and `optimizer` are Accelerate's; `init_from` is the file with the initial weights, None if they are
    random or from a checkpoint."""

    accelerator: Accelerator
    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None
    init_from: Loaded | None

    @classmethod
    def of(cls, config: TrainConfig, accelerator: Accelerator, fresh: bool) -> Learner:
        """A new one. Random weights are drawn from the run's seed; only a `fresh` run reads the file of --init-from."""
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.manual_seed(config.seed)
        options = dict(PAPER.get(config.model, {})) if config.losses.preset == "paper" else {}
        if config.data.pseudo_share:
            options["texture"] = TEXTURE_WIDTH
        model = build(config.model, **options)
        loaded = None
        if config.init_from and fresh:
            loaded = weights.load(model, config.model, config.init_from)
            log.info("starting from %s", loaded)
        optimizer = torch.optim.AdamW(decay_groups(model, config.weight_decay), lr=config.lr)
        mean = average(model, config.ema).to(accelerator.device) if config.ema else None
        if config.compile:
            model.compile()
        prepared, wrapped = accelerator.prepare(model, optimizer)
        return cls(accelerator, prepared, wrapped, mean, loaded)

    @property
    def student(self) -> nn.Module:
        """The student itself, whose weights the optimizer updates."""
        own: nn.Module = self.accelerator.unwrap_model(self.model)
        return own

    @property
    def detector(self) -> nn.Module:
        """The model that is validated and saved: the running average of the weights if there is one, else the
        weights."""
        return self.student if self.average is None else self.average.module
