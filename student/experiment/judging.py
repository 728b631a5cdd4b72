"""What arms are judged on: made swaps, swaps at the best offset, made shifts and forgeries, and their scores.

Each corpus is a test set of its own. A swap's sound differs in content *and* is out of step; at the best offset it is
moved to where the teachers find that it fits best, within LIMIT frames, and so is its twin's: what remains is content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import store
from store import Reader
from store.dataset.spans import spans
from store.layout import VOICE_ACTIVE, evident
from store.similarity import MAX_OFFSET, best_offset
from student.checkpoint import load_model
from student.experiment.parts import evenly
from student.scoring import score
from student.scoring.score import MIN_FRAMES, Trial

SWAPS, AT_BEST, SHIFTS, FORGERIES = "swaps", "swaps at the best offset", "shifts", "forgeries"
TRIM = "leading"  # as `student.train` by default
PAIRS = 2  # swaps, and shifts, made of each real clip


@dataclass(frozen=True)
class TrialSet:
    """The trials of one corpus: `tasks` says which of them [n] bool each figure uses, `groups` [n] whose lips they show."""

    name: str
    reader: Reader
    items: list[Trial]
    groups: np.ndarray
    tasks: Mapping[str, np.ndarray]
    clips: int

    @property
    def labels(self) -> np.ndarray:
        """0 or 1 of each trial, i8 [n]."""
        return np.array([t.label for t in self.items], int)


def trial_sets(
    path: str, rows: np.ndarray | None, judged: int, tasks: Sequence[str], trim: str = TRIM
) -> list[TrialSet]:
    """A test set for each corpus of a store, at most `judged` real and as many forged clips of each, evenly spaced.

    `rows`: those that may be judged, None = every finished clip with a label. A task without both classes is left out, a
    corpus without a task too.
    """
    reader = store.open(path)
    labels, names = np.asarray(reader.clips["label"]), reader.clips["corpus"].astype(str)
    if rows is None:
        rows = np.flatnonzero((np.asarray(reader.clips["done"]) == 1) & (labels >= 0))
    found = []
    for name in np.unique(names[rows]):
        of = rows[names[rows] == name]
        few = np.sort(np.r_[evenly(of[labels[of] == 0], judged), evenly(of[labels[of] == 1], judged)])
        one = _trial_set(reader, str(name), few, tasks, trim)
        if one.tasks:
            found.append(one)
    return found


def _trial_set(reader: Reader, name: str, rows: np.ndarray, tasks: Sequence[str], trim: str) -> TrialSet:
    wanted = PAIRS if {SWAPS, SHIFTS, AT_BEST} & set(tasks) else 0
    items = score.trials(reader, rows, spans(reader, rows, trim), 0, swaps=wanted, shifts=wanted)
    whole = ~np.array([t.made for t in items], bool)
    use = {SWAPS: score.of_method(items, score.MADE[0]), SHIFTS: score.of_method(items, score.MADE[1])}
    use = {task: mask & ~whole for task, mask in use.items()} | {FORGERIES: whole}
    if AT_BEST in tasks and reader.fit is not None:
        moved = at_best_offset(reader, [t for t, swap in zip(items, use[SWAPS], strict=True) if swap])
        use = {task: np.r_[mask, np.zeros(len(moved), bool)] for task, mask in use.items()}
        use[AT_BEST] = np.r_[np.zeros(len(items), bool), np.ones(len(moved), bool)]
        items = items + moved
    labels = np.array([t.label for t in items])
    kept = {task: use[task] for task in tasks if task in use and len(np.unique(labels[use[task]])) == 2}
    needed = np.any(list(kept.values()), axis=0) if kept else np.zeros(len(items), bool)
    items = [t for t, one in zip(items, needed, strict=True) if one]
    groups = np.array([str(reader.clips["group"][t.lips]) or str(t.lips) for t in items])
    return TrialSet(name, reader, items, groups, {task: mask[needed] for task, mask in kept.items()}, len(rows))


def at_best_offset(reader: Reader, items: Sequence[Trial]) -> list[Trial]:
    """The trials with their sound moved to the offset at which the teachers find the best agreement.

    Each loses the same number of frames at both ends, so that any offset stays inside the trial and a swap keeps the
    length of its twin. Pairs of which one has no frame with face and voice, or is too short, are left out.
    """
    fit = reader.fit
    assert fit is not None
    moved: dict[str, Trial] = {}
    for t in items:
        limit = min(MAX_OFFSET, (t.length - MIN_FRAMES) // 2)
        if limit < 1:
            continue
        lips = reader.frames(t.lips, t.lips_start, t.lips_start + t.length, ["vsr_projection", "flags"])
        sound = reader.frames(t.sound, t.sound_start, t.sound_start + t.length, ["asr_projection", "flags"])
        face, voice = evident(lips["flags"]), sound["flags"] & VOICE_ACTIVE > 0
        try:
            offset = best_offset(lips["vsr_projection"], sound["asr_projection"], fit, face, voice, limit).frames
        except ValueError:  # no frame with face and voice
            continue
        first = t.sound_start + limit - offset
        moved[t.id] = replace(
            t, id=f"{t.id}|best", lips_start=t.lips_start + limit, sound_start=first, length=t.length - 2 * limit
        )
    names = {i.removesuffix("|own") for i in moved}
    both = {i for i in names if i in moved and f"{i}|own" in moved}
    return [t for i, t in moved.items() if i.removesuffix("|own") in both]


def student_scores(folder: Path, sets: Sequence[TrialSet]) -> list[np.ndarray]:
    """Logit [n] of "fake" of each trial of each set, by the detector in `folder`. Raises ScoreError, CheckpointError."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, header = load_model(folder, device)
    found = []
    for one in sets:
        values = score.logits(model, one.reader, one.items, header.window, device, picture=header.picture)
        score.check_finite(one.items, values)
        found.append(values)
    return found


def teacher_scores(sets: Sequence[TrialSet]) -> list[np.ndarray]:
    """The same by the teachers' similarity over the trial; all NaN for a store without a fit."""
    return [score.teacher_scores(one.reader, one.items)[0] for one in sets]
