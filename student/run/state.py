"""How far a run is and its figures so far, as records: what `trainer.json` keeps and results.json and the card are made of.

Each record has a `to_json` and, where a checkpoint brings it back, a `parse` that checks it once; nobody looks into the JSON
later. Figures that are not finite are null in JSON and NaN here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

KINDS = ("auc_swap", "auc_shift", "alarms")  # figures that earlier releases did not have


@dataclass(frozen=True)
class Facts:
    """What stays the same throughout a run and stands in each of its files."""

    window: int
    too_short: int  # training clips that take no part
    validation_by: str  # how validation clips were chosen (`student.data.splits`)
    parameters: int
    processes: int = 1
    threads: int = 1
    device: str = "cpu"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Seconds:
    """Where the time went."""

    train: float = 0.0
    loader: float = 0.0  # of those in training: waiting for batches
    validation: float = 0.0

    def to_json(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Seconds:
        return cls(*(_number(told.get(f.name, 0.0)) for f in fields(cls)))


@dataclass(frozen=True)
class Validation:
    """Figures of the validation trials: AUC overall, of swaps and of shifts; the share of reals that read as fake (`alarms`);
    Brier score; and the threshold and temperature that fit them. Without trials there is nothing but the defaults."""

    trials: int = 0
    auc: float = math.nan
    brier: float = math.nan
    threshold: float = 0.0
    temperature: float = 1.0
    auc_swap: float | None = None
    auc_shift: float | None = None
    alarms: float | None = None

    @property
    def rank(self) -> tuple[float, float]:
        """Higher is better: three digits of the AUC, which near 1 says no more, then calibration."""
        return (round(self.auc, 3), -self.brier) if math.isfinite(self.auc) else (0.0, -1.0)

    def finite(self) -> dict[str, float]:
        """Those that are numbers, by name."""
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
        return cls(trials=_whole(told.get("trials", 0)), **values)  # type: ignore[arg-type]  # KINDS alone may be None


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
    """The best detector so far: its figures, the epoch and step after which it was kept, the digest of its weights ("" where an
    earlier release saved the checkpoint)."""

    rank: tuple[float, float]
    epoch: int
    step: int
    weights: str
    figures: Validation

    def to_json(self) -> dict[str, Any]:
        digest = {"weights": self.weights} if self.weights else {}
        told = {"rank": list(self.rank), "epoch": self.epoch, "step": self.step, **digest}
        return told | self.figures.to_json()

    def shown(self) -> dict[str, Any]:
        """What results.json says of it."""
        return {name: value for name, value in self.to_json().items() if name not in ("rank", "weights")}

    @classmethod
    def parse(cls, told: Mapping[str, Any]) -> Best:
        """Raises ValueError, KeyError or TypeError for anything else than `to_json` gives."""
        first, second = told["rank"]
        digest = told.get("weights", "")
        if not isinstance(digest, str):
            raise ValueError("the digest of weights is not text")
        rank = _number(first), _number(second)
        return cls(rank, _whole(told["epoch"]), _whole(told["step"]), digest, Validation.parse(told))


@dataclass
class State:
    """How far a run is: `step` optimizer steps, `epoch` whole passes over the data, and `position` windows of the next."""

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
        """From what `student.run_state.read_state` gives. Raises ValueError, with the name of what cannot be used."""
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
    """A figure of JSON, where null stands for what is not finite; ValueError for anything else."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{str(value)[:40]!a} is not a number")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{str(value)[:40]!a} is not a whole number")
    return value
