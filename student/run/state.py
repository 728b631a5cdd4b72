"""Progress of a run and its figures so far, as records: the source of `trainer.json`, results.json and the card.

Each record has a `to_json`. Those that are read from a checkpoint have a `parse` that checks the JSON once; no other
code reads it. Figures that are not finite are null in JSON and NaN here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from store.similarity.strangers import NAME, Strangers
from student.header import MOST_LOGIT

KINDS = ("auc_swap", "auc_shift", "alarms")  # figures that earlier releases did not have


@dataclass(frozen=True)
class Facts:
    """Facts that are constant during a run and are written to each of its files."""

    window: int
    too_short: int  # training clips that are not used
    validation_by: str  # how validation clips were chosen (`student.data.splits`)
    parameters: int
    processes: int = 1
    threads: int = 1
    device: str = "cpu"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Seconds:
    """Use of time."""

    train: float = 0.0
    loader: float = 0.0  # part of the training time: waiting for batches
    validation: float = 0.0

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Seconds:
        return cls(*(_number(told.get(f.name, 0.0)) for f in fields(cls)))


@dataclass(frozen=True)
class Validation:
    """Figures of the validation trials: AUC overall, of swaps and of shifts; the share of real clips classified as fake
    (`alarms`); Brier score; the threshold and temperature fitted to them; and what strangers score, which only the best
    detector's record keeps. Without trials all fields have their defaults."""

    trials: int = 0
    auc: float = math.nan
    brier: float = math.nan
    threshold: float = 0.0
    temperature: float = 1.0
    auc_swap: float | None = None
    auc_shift: float | None = None
    alarms: float | None = None
    strangers: Strangers | None = None

    @property
    def rank(self) -> tuple[float, float]:
        """Higher is better: three digits of the AUC (more are not informative near 1), then calibration."""
        return (round(self.auc, 3), -self.brier) if math.isfinite(self.auc) else (0.0, -1.0)

    def finite(self) -> dict[str, float]:
        """The figures that are numbers, by name."""
        return {name: value for name, value in self.to_json().items() if math.isfinite(value)}

    def to_json(self) -> dict[str, Any]:
        first = {"auc": self.auc}
        optional = {name: value for name in KINDS if (value := getattr(self, name)) is not None}
        scale = {"threshold": self.threshold, "temperature": self.temperature}
        return {**first, **optional, "brier": self.brier, **scale, "trials": self.trials}

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Validation:
        """Raises ValueError for figures that are not numbers."""
        values: dict[str, float | None] = {name: _number(told[name]) for name in KINDS if name in told}
        for name, default in (("auc", None), ("brier", None), ("threshold", 0.0), ("temperature", 1.0)):
            values[name] = _number(told.get(name, default))
        return cls(trials=_whole(told.get("trials", 0)), **values)  # type: ignore[arg-type]  # only KINDS may be None


@dataclass(frozen=True)
class Epoch:
    """One line of a run's history: the figures after an epoch."""

    epoch: int
    step: int
    seconds: Seconds
    figures: Validation

    def to_json(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds.to_json(),
            **self.figures.to_json(),
        }

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Epoch:
        seconds, figures = Seconds.parse(told["seconds"]), Validation.parse(told)
        return cls(_whole(told["epoch"]), _whole(told["step"]), seconds, figures)


@dataclass(frozen=True)
class Best:
    """The best detector so far: its figures, the epoch and step after which it was kept, the digest of its weights (""
    in checkpoints from an earlier release)."""

    rank: tuple[float, float]
    epoch: int
    step: int
    weights: str
    figures: Validation

    def to_json(self) -> dict[str, Any]:
        digest = {"weights": self.weights} if self.weights else {}
        told = {"rank": list(self.rank), "epoch": self.epoch, "step": self.step, **digest}
        strangers = {NAME: self.figures.strangers.told()} if self.figures.strangers else {}
        return told | self.figures.to_json() | strangers

    def shown(self) -> dict[str, Any]:
        """Its entry in results.json."""
        return {name: value for name, value in self.to_json().items() if name not in ("rank", "weights", NAME)}

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Best:
        """Raises ValueError, KeyError or TypeError for anything that `to_json` does not return."""
        first, second = told["rank"]
        digest = told.get("weights", "")
        if not isinstance(digest, str):
            raise ValueError("the digest of weights is not text")
        rank = _number(first), _number(second)
        figures = replace(Validation.parse(told), strangers=Strangers.of(told, MOST_LOGIT))
        return cls(rank, _whole(told["epoch"]), _whole(told["step"]), digest, figures)


@dataclass
class State:
    """Progress of a run: `step` optimizer steps, `epoch` whole passes over the data, and `position` windows of the
    next."""

    step: int = 0
    epoch: int = 0
    position: int = 0
    history: list[Epoch] = field(default_factory=list)
    best: Best | None = None
    seconds: Seconds = field(default_factory=Seconds)

    def to_json(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "epoch": self.epoch,
            "position": self.position,
            "history": [line.to_json() for line in self.history],
            "best": self.best.to_json() if self.best else {},
            "seconds": self.seconds.to_json(),
        }

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> State:
        """From the result of `student.run_state.read_state`. Raises ValueError, which names the field that cannot be
        used."""
        reading = "history"
        try:
            history = [Epoch.parse(line) for line in told["history"]]
            reading = "best figures"
            best = Best.parse(told["best"]) if told["best"] else None
            reading = "seconds"
            seconds = Seconds.parse(told["seconds"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ValueError(f"no {reading} that can be used") from None
        return cls(told["step"], told["epoch"], told["position"], history, best, seconds)


def _number(value: Any) -> float:
    """A figure from JSON, where null means not finite; ValueError for anything else."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{str(value)[:40]!a} is not a number")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{str(value)[:40]!a} is not an integer")
    return value
