"""leave-one-method-out: whether a student recognises forgeries by a method that its training had none of.

Trained on real clips and on the labelled forgeries of all other methods; real clips of the sources of the held-out
method's forgeries are in the test alone.
"""

from __future__ import annotations

from student.experiment import folds, unseen
from student.experiment.asked import Asked
from student.experiment.tables import Result

QUESTION = "does what a student learns from some methods of forging help against one that it has not seen?"
LIMITS = [
    "methods that none of the clips is of; methods of one family are not held out together",
    "whether a longer training, or another share of real and forged clips, changes the order of the arms",
    "forgeries of one source differ from real clips of another in camera and codec, too: read the rows within a source",
]


def run(asked: Asked) -> Result:
    """Train every arm without each method, and judge it there. Raises ExperimentError."""
    return unseen.result(asked, QUESTION, folds.by_method, "method", LIMITS)
