"""soft-labels: the same student with and without the teachers' soft labels.

"Without" has the detection term alone (`--w-correlation 0 --w-contrastive 0`): both other terms weigh their frames by
soft labels. Data, order of windows, made pairs, steps and seeds are the same.
"""

from __future__ import annotations

from student.experiment import runs
from student.experiment.arms import Arm
from student.experiment.asked import Asked
from student.experiment.judging import FORGERIES, SHIFTS, SWAPS
from student.experiment.tables import Result

QUESTION = "does a student learn more with soft labels than without?"
ARMS = (
    Arm("with", "detection, correlation and contrastive terms"),
    Arm("without", "the detection term alone", {"w_correlation": 0.0, "w_contrastive": 0.0}),
)
LIMITS = [
    "whether a longer training without labels catches up: both arms have the same few steps",
    "which of the two terms with labels matters (see content-or-sync)",
    "what labels of better teachers would bring",
]


def run(asked: Asked) -> Result:
    """Train both arms, and judge them. Raises ExperimentError without soft labels."""
    return runs.result(asked, QUESTION, ARMS, (SWAPS, SHIFTS, FORGERIES), [("with", "without")], LIMITS)
