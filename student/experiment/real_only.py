"""real-only: whether a student that learned from real clips alone recognises forgeries.

Its fakes in training are made of real clips: another clip's sound, their own shifted and, in one arm, pseudo-fakes. Real
clips of the forgeries' sources are in the test alone.
"""

from __future__ import annotations

from student.experiment import folds, unseen
from student.experiment.asked import Asked
from student.experiment.tables import Result

QUESTION = "does a student that was trained on real clips alone recognise forgeries?"
LIMITS = [
    "what labelled forgeries add (see leave-one-method-out)",
    "forgeries whose lips fit their sound: made pairs teach nothing about them",
    "forgeries of one source differ from real clips of another in camera and codec, too: read the rows within a source",
]


def run(asked: Asked) -> Result:
    """Train every arm on real clips, and judge it on each method. Raises ExperimentError."""
    return unseen.result(asked, QUESTION, folds.of_reals, "method", LIMITS)
