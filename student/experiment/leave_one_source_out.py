"""leave-one-source-out: whether a student recognises forgeries from a source that its training had no clip of.

A source is where clips are from (column `source`). Methods may be on both sides; real clips of the held-out source are in
the test alone.
"""

from __future__ import annotations

from student.experiment import folds, unseen
from student.experiment.asked import Asked
from student.experiment.tables import Result

QUESTION = "does what a student learns from some sources help on clips of one that it has not seen?"
LIMITS = [
    "methods that training has not seen, unless a source is the only one with its method (see leave-one-method-out)",
    "clips whose source is not known: they are only trained on, or real clips of every test",
    "forgeries of one source differ from real clips of another in camera and codec, too: read the rows within a source",
]


def run(asked: Asked) -> Result:
    """Train every arm without each source, and judge it there. Raises ExperimentError."""
    return unseen.result(asked, QUESTION, folds.by_source, "source", LIMITS)
