"""Validation while training: every trial scored once, by however many processes, and the figures that choose a detector."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from store import Reader
from store.similarity import grounds
from student.scoring import metrics, score


def validate(
    accelerator: Accelerator,
    model: nn.Module,
    reader: Reader,
    trials: list[score.Trial],
    window: int,
    picture: str,
) -> dict[str, Any]:
    """Figures of validation trials, each scored once whatever the number of processes: AUC overall, of swaps and of shifts,
    the share of reals that read as fake (alarms), Brier score, and the threshold and temperature that fit them (0 and 1 without
    trials). Raises score.ScoreError, in all processes, where a logit is not finite."""
    mine = trials[accelerator.process_index :: accelerator.num_processes]
    values = score.logits(accelerator.unwrap_model(model), reader, mine, window, accelerator.device, picture=picture)
    by_id = dict(gather_object([(t.id, float(v)) for t, v in zip(mine, values, strict=True)]))
    if len(by_id) != len(trials):
        raise RuntimeError(f"validation gathered {len(by_id)} of {len(trials)} trials")
    logits = np.array([by_id[t.id] for t in trials])
    labels = np.array([t.label for t in trials], int)
    if not trials:
        return {"auc": math.nan, "brier": math.nan, "threshold": 0.0, "temperature": 1.0, "trials": 0}
    score.check_finite(trials, logits)
    used = score.headline(trials)
    threshold = metrics.fit_threshold(logits[used], labels[used])
    temperature = metrics.fit_temperature(logits[used], labels[used], threshold)
    probability = metrics.probability(logits[used], threshold, temperature)
    out = {"auc": metrics.auc(logits[used], labels[used])}
    for method in score.MADE:
        chosen = score.of_method(trials, method)
        out[f"auc_{method.removeprefix('made ')}"] = metrics.auc(logits[chosen], labels[chosen])
    out["alarms"] = grounds.alarms(probability[labels[used] == 0])
    out["brier"] = float(np.mean((probability - labels[used]) ** 2))
    return out | {"threshold": threshold, "temperature": temperature, "trials": int(used.sum())}
