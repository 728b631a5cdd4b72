"""All scorers on the trials of one split: the student, the teachers, the teachers at their best offset, and both together.

Trials are divided among the processes and gathered by id, so all processes get the same result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from store import Reader
from store.dataset.spans import spans
from student.data.splits import Split, SplitError
from student.header import Header
from student.scoring import score
from student.scoring.report import Coverage, TrialScores

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Made:
    """How many pairs are made from each real clip, and their seed."""

    swaps: int = 1
    shifts: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Scored:
    """Trials [n], their scores f8 [n] by scorer (0 = threshold), best offsets f8 [n] in frames, and coverage of the split."""

    items: list[score.Trial]
    scores: Mapping[str, np.ndarray]
    offset: np.ndarray
    coverage: Coverage

    def trials(self, weight: np.ndarray) -> list[TrialScores]:
        """One record per trial; `weight` f4 [clips] by row of the clips table."""
        columns = zip(*(values.tolist() for values in self.scores.values()), strict=True)
        return [
            TrialScores(
                id=t.id,
                label=t.label,
                method=t.method,
                made=t.made,
                frames=t.length,
                weight=float(weight[t.lips]),
                offset=offset,
                scores=dict(zip(self.scores, values, strict=True)),
            )
            for t, offset, values in zip(self.items, self.offset.tolist(), columns, strict=True)
        ]


@dataclass(frozen=True)
class Scorer:
    """A detector and a store's teachers; with `accelerator`, one of several processes that divide the trials."""

    reader: Reader
    model: nn.Module
    header: Header
    batch_size: int = 16
    accelerator: Accelerator | None = None

    def split(self, chosen: Split, name: str, trim: str, made: Made) -> Scored:
        """Score the split `name` with spans by `trim`. Raises SplitError if there is nothing to score, ScoreError if a
        score of the detector is not finite."""
        rows, listed = chosen.rows[name], chosen.listed[name]
        inside = spans(self.reader, rows, trim)
        items = score.trials(self.reader, rows, inside, made.seed, made.swaps, made.shifts)
        if not items:
            raise SplitError(
                f"split {name} of {self.reader.path} has no labelled clip that is done and long enough ({listed} listed); "
                "choose another --split or --trim, or give --splits"
            )
        student, teacher, best, margin, offset = self._all(items)
        score.check_finite(items, student)
        moved = student - self.header.threshold
        both = (
            moved / self.header.temperature + teacher
        )  # sum of two log odds: the evidence is assumed to be independent
        scores = {"student": moved, "teacher": teacher, "teacher_offset": best, "teacher_margin": margin, "both": both}
        too_short = int((inside.length[rows] < score.MIN_FRAMES).sum())
        return Scored(items, scores, offset, Coverage(listed, len(rows), too_short))

    def _all(self, items: list[score.Trial]) -> np.ndarray:
        """Logit, teachers' logit, their score at the best offset, its margin and that offset: f8 [5, n]."""
        from accelerate.utils import gather_object

        here = self.accelerator
        rank, world = (here.process_index, here.num_processes) if here else (0, 1)
        mine = items[rank::world]
        device = here.device if here else torch.device("cpu")
        size, picture = self.batch_size, self.header.picture
        values = (
            score.logits(self.model, self.reader, mine, self.header.window, device, batch_size=size, picture=picture),
            *score.teacher_scores(self.reader, mine),
        )
        ours = [(t.id, *(float(x) for x in row)) for t, *row in zip(mine, *values, strict=True)]
        found = {name: row for name, *row in (gather_object(ours) if world > 1 else ours)}
        if len(found) != len(items):
            raise RuntimeError(f"gathered {len(found)} of {len(items)} trials")
        return np.array([found[t.id] for t in items]).T
