"""The one place that asks `student.predict`: the basis of its answers, which face it judges, and what it says.

Everything that the yardstick calls a decision comes from here, so it is what the command itself would say.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import store
from benchmarks.strangers.listed import Listed
from pipelines.labels.learn import training_clips
from store.similarity.strangers import MAP
from student.calibration import named
from student.predict.agreement import settled
from student.predict.answer import answer, refusal
from student.predict.basis import Basis, basis
from student.predict.evidence import Evidence
from student.predict.records import Answer


class Decider:
    """What `predict` would say, with one basis for all videos; words are left out."""

    def __init__(self, on: Basis) -> None:
        self.on = on
        self.corpus = on.map_of
        self.calibration = on.calibration()

    @classmethod
    def of(cls, checkpoint: Path | None, fit_from: str | None, corpus: str | None) -> Decider:
        """As the command's options name them. Raises StoreError, CheckpointError."""
        return cls(basis(checkpoint, fit_from, corpus, "cpu"))

    @property
    def has_student(self) -> bool:
        return self.on.detector is not None

    @property
    def within(self) -> int:
        """Frames by which the sound of any video may be moved before it is compared."""
        strangers = self.on.strangers if self.corpus == MAP else None
        return strangers.within if strangers is not None else 0

    @property
    def arrays(self) -> list[str]:
        """The members of layout.OPTIONAL_ARRAYS that the student needs."""
        return ["face"] if self.on.detector and self.on.detector.header.picture == "face" else []

    def face(self, evidence: Evidence) -> Evidence:
        """The evidence with the face that would be judged."""
        return settled(evidence, self.on.fit)

    def __call__(self, evidence: Evidence) -> Answer:
        """The answer for one video, of several faces about the one that fits its voice."""
        judge = self.on.detector.judge if self.on.detector else None
        return answer(self.face(replace(evidence, words=[])), self.on.fit, self.corpus, self.calibration, judge)

    def refuses(self, path: str, reason: str, message: str) -> Answer:
        """The answer for a video without evidence; `reason` is the ledger's."""
        return refusal(path, reason, message)

    def told(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.on.told(), "calibration": self.calibration.to_json()}


def seen_by_fit(listed: Sequence[Listed], fit_from: str | None) -> int | None:
    """The number of clips that the fit of a store may have learned from: all of its real training clips. None if it cannot be
    told: of the package's fit (None), of a file or a name, and of a fit from elsewhere only the names of corpora are known,
    and clips may stand under other names here."""
    if fit_from is None or named.asked(fit_from) is not None:
        return None
    reader = store.open(fit_from)
    if "fit_from" in (reader.attrs.get("similarity") or {}):
        return None
    taught = {os.path.realpath(str(reader.clips["path"][i])) for i in training_clips(reader)}
    return sum(os.path.realpath(one.row.path) in taught for one in listed)
