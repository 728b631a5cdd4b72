"""The result of an evaluation as records: scores of every trial, a table for each way of trimming and choosing clips,
and coverage.

`student.evaluate --output` writes `Report.to_json`; tables and plots are made from the records. NaN means that a figure
is undefined (one class only); it becomes null in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from store.seen import Seen
from student.scoring.metrics import Figures

Table = Mapping[str, Mapping[str, "Line"]]  # {"overall", "category NAME", method: {scorer: its figures}}


@dataclass(frozen=True)
class Line:
    """Figures of one scorer on one method, with the 95 % interval of the AUC; `nuisance` names the trivial number if
    that is the scorer. `seen` counts the clips behind them that the scorer has learned from, None if that is not
    recorded. `sources`: how many sources the clips are of, and the interval of the AUC that draws these; NaN where
    fewer than two are known. `groups`: how many groups (people) the clips are of; `by_clip`: the interval draws single clips,
    since there are few of these or one has most; `people`: how many are named, 0 if some clip names nobody."""

    figures: Figures
    auc_low: float
    auc_high: float
    nuisance: str = ""
    seen: int | None = 0
    sources: int = 0
    source_low: float = float("nan")
    source_high: float = float("nan")
    groups: int = 0
    by_clip: bool = False
    people: int = 0

    def to_json(self) -> dict[str, Any]:
        named = {"nuisance": self.nuisance} if self.nuisance else {}
        interval = {"auc_low": self.auc_low, "auc_high": self.auc_high}
        by_source = {"count": self.sources, "auc_low": self.source_low, "auc_high": self.source_high}
        drawn = {"groups": self.groups, "by_clip": self.by_clip, "people": self.people}
        return {**named, **asdict(self.figures), **interval, **drawn, "seen": self.seen, "sources": by_source}


@dataclass(frozen=True)
class Coverage:
    """Numbers of clips of a split: listed, finished, too short, scored; and of pairs made from them."""

    listed: int
    done: int
    too_short: int
    scored: int = 0
    pairs: int = 0

    def to_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True)
class Variant:
    """The table for one way of trimming clips (`trim`) and choosing them (`clips`: "all" or "matched"), and how many of
    its clips were `seen` by the fit, by the detector in training, and in setting its threshold."""

    trim: str
    clips: str
    coverage: Coverage
    methods: Table
    seen: Mapping[str, Seen] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        methods = {name: {who: line.to_json() for who, line in row.items()} for name, row in self.methods.items()}
        return {
            "trim": self.trim,
            "clips": self.clips,
            "coverage": self.coverage.to_json(),
            "seen": {who: one.to_json() for who, one in self.seen.items()},
            "methods": methods,
        }


@dataclass(frozen=True)
class TrialScores:
    """The scores of one trial: `scores` by scorer, 0 at the threshold if there is one; the best offset in frames."""

    id: str
    label: int
    method: str
    made: bool
    frames: int
    weight: float
    offset: float
    scores: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        told = {name: value for name, value in self.__dict__.items() if name != "scores"}
        return {**told, **self.scores}


@dataclass(frozen=True)
class Report:
    """A whole evaluation. `trials` are those of the first variant; `trained_on` is the detector's record of its
    store."""

    store: str
    checkpoint: str
    split: str
    seed: int
    audited: bool
    threshold: float
    temperature: float
    fitted_on: str
    trained_on: Mapping[str, Any]
    variants: Sequence[Variant]
    trials: Sequence[TrialScores]

    def to_json(self) -> dict[str, Any]:
        variants = [variant.to_json() for variant in self.variants]
        told = {k: v for k, v in self.__dict__.items() if k not in ("variants", "trials")}
        first = {name: variants[0][name] for name in ("trim", "coverage", "seen", "methods")}
        return {**told, **first, "variants": variants, "trials": [trial.to_json() for trial in self.trials]}
