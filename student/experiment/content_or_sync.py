"""content-or-sync: the teachers' labels of content against labels of synchronisation alone.

Sync labels need no teacher: 1 for a clip's own sound in time, 0 for a shift of any size and for another clip's sound
(`student.data.dataset.in_sync`). The same frames count in both arms (face and voice). The first two arms have the
correlation term without the contrastive one, which itself teaches to find the own sound; the last two have both. No
arm learns the teachers' rows (the projection term of `student.train`), which only teachers have.
"""

from __future__ import annotations

from student.experiment import runs
from student.experiment.arms import Arm
from student.experiment.asked import Asked
from student.experiment.judging import AT_BEST, SHIFTS, SWAPS
from student.experiment.tables import Result

QUESTION = "labels of content (soft) or of synchronisation (0 or 1)?"
LABELS = {"w_projection": 0.0}  # labels of pairs alone: synchronisation has no rows to learn
ALONE = {"w_contrastive": 0.0, **LABELS}
ARMS = (
    Arm("content", "soft labels in the correlation term, no contrastive term", {"labels": "content", **ALONE}),
    Arm("sync", "labels of synchronisation in the correlation term, no contrastive term", {"labels": "sync", **ALONE}),
    Arm("content-both", "soft labels in both terms", {"labels": "content", **LABELS}),
    Arm("sync-both", "labels of synchronisation in both terms", {"labels": "sync", **LABELS}),
)
PAIRS = [("content", "sync"), ("content-both", "sync-both")]
LIMITS = [
    "swaps by a voice that says the same words: another clip's sound differs in speaker and rhythm too",
    "labels from teachers that read lips: the default lip teacher is a shape of the mouth, not a reader of words",
    "at the best offset the teachers chose the offset, which may favour arms that learned from them",
]


def run(asked: Asked) -> Result:
    """Train the four arms, and judge them. Raises ExperimentError without soft labels."""
    return runs.result(asked, QUESTION, ARMS, (SWAPS, AT_BEST, SHIFTS), PAIRS, LIMITS)
