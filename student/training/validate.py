"""Validation during training: every trial is scored once, by any number of processes; the figures choose the
detector."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from store.similarity import grounds
from student.run.state import Validation
from student.scoring import metrics, score, strangers
from student.training.plan import Plan


def validate(accelerator: Accelerator, detector: nn.Module, plan: Plan, trials: list[score.Trial]) -> Validation:
    """Figures of validation trials, each scored once for any number of processes. Raises score.ScoreError, in all
    processes, if a logit is not finite."""
    mine = trials[accelerator.process_index :: accelerator.num_processes]
    own = accelerator.unwrap_model(detector)
    values = score.branches(own, plan.reader, mine, plan.data.window, accelerator.device, picture=plan.data.picture)
    by_id = dict(gather_object([(t.id, v.tolist()) for t, v in zip(mine, values, strict=True)]))
    if len(by_id) != len(trials):
        raise RuntimeError(f"validation gathered {len(by_id)} of {len(trials)} trials")
    if not trials:
        return Validation()
    parts = np.array([by_id[t.id] for t in trials], float)
    labels = np.array([t.label for t in trials], int)
    used = score.headline(trials)
    score.check_finite(trials, parts.sum(1))
    if parts.shape[1] > 1:
        judged = [t for t, u in zip(trials, used, strict=True) if u]
        corpora = ["" if t.made else str(plan.reader.clips["corpus"][t.lips]) for t in judged]
        _weigh(own, parts[used], labels[used], np.array(corpora))
    logits = score.fused(own, parts)
    threshold = metrics.fit_threshold(logits[used], labels[used])
    temperature = metrics.fit_temperature(logits[used], labels[used], threshold)
    probability = metrics.probability(logits[used], threshold, temperature)
    swaps, shifts = (score.of_method(trials, method) for method in score.MADE)
    return Validation(
        trials=int(used.sum()),
        auc=metrics.auc(logits[used], labels[used]),
        brier=float(np.mean((probability - labels[used]) ** 2)),
        threshold=threshold,
        temperature=temperature,
        auc_swap=metrics.auc(logits[swaps], labels[swaps]),
        auc_shift=metrics.auc(logits[shifts], labels[shifts]),
        alarms=grounds.alarms(probability[labels[used] == 0]),
        strangers=strangers.measured(
            plan.reader.clips,
            plan.split.rows["train"],
            [t for t, u in zip(trials, used, strict=True) if u],
            logits[used],
        ),
    )


def _weigh(detector: nn.Module, parts: np.ndarray, labels: np.ndarray, corpora: np.ndarray) -> None:
    """Set the weights by which a detector adds its branches: fitted on the corpora [n] that have real and forged clips,
    since a real clip of another corpus differs in more than being real. Where there is none (made pairs, whose corpus is
    "", say nothing about pictures), such that each branch varies alike over real clips."""
    both = [name for name in np.unique(corpora) if name and len(set(labels[corpora == name].tolist())) == 2]
    inside = np.isin(corpora, both)
    weights = metrics.fit_weights(parts[inside], labels[inside]) if both else metrics.equal_weights(parts, labels)
    with torch.no_grad():
        cast(torch.Tensor, detector.fusion).copy_(torch.from_numpy(weights))
