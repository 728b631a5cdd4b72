"""Settings of a training run: frozen, made once from the command's options, saved as `config.json` beside the
output."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from concord.errors import ConcordError
from concord.files import write
from concord.plain_json import cleaned
from store.dataset.spans import TRIMS
from store.layout import SPLITS as SPLITS

PRESETS = ("default", "paper")
PRECISIONS = ("no", "fp16", "bf16")
KEEPS = ("best", "last")
SCHEDULES = ("cosine", "paper")  # see student.training.optimize
PROJECTION = 4.0  # default weight of the projection term beside the correlation term
LABELS = ("content", "sync")  # see student.data.dataset
MOST_PSEUDO = 4  # pseudo-fakes of a window; each costs as much as reading it
BALANCES = ("clips", "source")  # see student.data.order
MOST_BYTES = 1_000_000  # limit for a file of options


class ConfigError(ConcordError, ValueError):
    """An invalid option; one line that names it."""


def _check_finite(config: Any) -> None:
    """NaN would pass every comparison that tests for values that are too small."""
    for f in fields(config):
        value = getattr(config, f.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"--{f.name.replace('_', '-')} must be a finite number, not {value}")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms (0 = off) and their forms. A run of an earlier release had no projection term."""

    preset: str = "default"
    w_detection: float = 1.0
    w_correlation: float = 1.0
    w_contrastive: float = 0.5
    w_projection: float = 0.0
    temperature: float = 0.07  # of the contrastive term
    confidence: float = 0.0  # power of |2 p - 1| that weights a soft label in the correlation term; 0 = equal weights
    exclude: int = 3  # frames (1/25 s) around an anchor that are not used as negatives: lips hardly move faster

    def __post_init__(self) -> None:
        _check_finite(self)
        if self.preset not in PRESETS:
            raise ConfigError(f"--losses must be one of {', '.join(PRESETS)}, not {self.preset}")
        weights = (self.w_detection, self.w_correlation, self.w_contrastive, self.w_projection)
        if min(weights) < 0 or max(weights) == 0:
            raise ConfigError("loss weights must not be negative, and at least one must be above 0")
        if self.temperature <= 0 or self.exclude < 0 or self.confidence < 0:
            raise ConfigError("--temperature must be above 0, --confidence and the excluded frames must not be below 0")
        if self.w_projection and self.preset == "paper":
            raise ConfigError("--w-projection is not part of the published forms: omit it, or omit --losses paper")
        if self.confidence and self.preset == "paper":
            raise ConfigError("--confidence is not part of the published forms: omit it, or omit --losses paper")

    @property
    def needs_soft_labels(self) -> bool:
        return self.w_correlation > 0 or self.w_contrastive > 0 or self.w_projection > 0


@dataclass(frozen=True)
class DataConfig:
    """How training windows are made. Shifts are in frames (1/25 s): lips at t are paired with the sound at t -
    shift."""

    window: int = 75  # at most; `spans.window_for` shortens it if the clips are shorter
    trim: str = "leading"
    labels: str = "content"  # of the correlation and contrastive terms: the teachers' similarity, or "sync"
    batch_size: int = 8  # windows per process and micro-batch
    pair_share: float = 0.5  # share of real clips' windows that get another clip's sound, or their own shifted
    swap_share: float = 0.5  # share of swaps among those
    pseudo_share: float = 0.0  # pseudo-fakes made of a real window, on average, for the texture branch; 0 = no branch
    min_fake_shift: int = 5  # smaller ones do not count as fake: only the correlation term uses them
    max_shift: int = 15
    augment: bool = True
    picture: str = "mouth"  # or "face"; not an option, the trainer chooses (`student.data.picture`)
    balance: str = "clips"  # windows of an epoch: as many as a clip holds, or "source" = equally many of each source
    buffer: int = 2048  # windows shuffled together, so that neighbouring reads stay within few shards

    def __post_init__(self) -> None:
        _check_finite(self)
        if self.window < 10 or self.batch_size < 2:
            raise ConfigError("--window must be at least 10 frames and --batch-size at least 2 windows")
        if not 0 <= self.pair_share <= 1 or not 0 <= self.swap_share <= 1:
            raise ConfigError("--pair-share and --swap-share are shares between 0 and 1")
        if not 1 <= self.min_fake_shift <= self.max_shift:
            raise ConfigError("--max-shift must be at least 5 frames")
        if self.trim not in TRIMS:
            raise ConfigError(f"--trim must be one of {', '.join(TRIMS)}, not {self.trim}")
        if not 0 <= self.pseudo_share <= MOST_PSEUDO:
            raise ConfigError(f"--pseudo-share is a number between 0 and {MOST_PSEUDO}")
        if self.labels not in LABELS:
            raise ConfigError(f"--labels must be one of {', '.join(LABELS)}, not {self.labels}")
        if self.balance not in BALANCES:
            raise ConfigError(f"--balance must be one of {', '.join(BALANCES)}, not {self.balance}")


@dataclass(frozen=True)
class TrainConfig:
    """A whole run. `threads` 0 = this machine's cores divided among its processes; `num_workers` -1 = 0 on a CPU, where
    reading takes a few percent of a step, and 4 on a GPU."""

    store: str
    output: str
    model: str = "lite"
    init_from: str | None = None
    splits: str | None = None
    epochs: int = 20
    max_steps: int | None = None
    lr: float = 1e-3
    weight_decay: float = 0.05
    schedule: str = "cosine"
    warmup: float = 0.05  # share of all steps
    ema: float = 0.0  # decay of the weights' running average, which is then validated and saved; 0 = none
    patience: int = 0  # the run ends after so many epochs without a better detector; 0 = never
    keep: str = "best"  # which epoch's detector: the best by validation, or "last", where validation is small
    clip_norm: float = 1.0
    seed: int = 0
    num_workers: int = -1
    threads: int = 0
    mixed_precision: str = "no"
    gradient_accumulation_steps: int = 1
    checkpointing_steps: str = "epoch"
    keep_checkpoints: int = 3
    cpu: bool = False
    compile: bool = False
    with_tracking: bool = False
    report_to: str = "tensorboard"
    losses: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        _check_finite(self)
        steps = self.checkpointing_steps
        if steps != "epoch" and not (steps.isdigit() and int(steps) > 0):
            raise ConfigError(f'--checkpointing_steps takes a number of steps or "epoch", not {steps}')
        if self.epochs < 1 or (self.max_steps is not None and self.max_steps < 1):
            raise ConfigError("--epochs and --max-steps must be at least 1")
        if self.data.pseudo_share and (not self.model.startswith("lite") or not self.losses.w_detection):
            raise ConfigError("--pseudo-share needs the model lite or lite-causal, and --w-detection above 0")
        if self.lr <= 0 or self.gradient_accumulation_steps < 1 or self.keep_checkpoints < 1 or self.seed < 0:
            raise ConfigError("--lr must be above 0, --seed at least 0, accumulation and kept checkpoints at least 1")
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"--schedule must be one of {', '.join(SCHEDULES)}, not {self.schedule}")
        if self.keep not in KEEPS or (self.keep == "last" and self.patience):
            raise ConfigError(f"--keep must be one of {', '.join(KEEPS)}, and last goes without --patience")
        if not 0 <= self.ema < 1 or self.patience < 0:
            raise ConfigError("--ema must be at least 0 and below 1, --patience a number of epochs")
        if self.mixed_precision not in PRECISIONS:
            raise ConfigError(f"--mixed_precision must be one of {', '.join(PRECISIONS)}")

    @classmethod
    def from_options(cls, **options: Any) -> TrainConfig:
        """Sort flat options into the nested configs by field name; `losses` and `model` keep their names."""
        options["preset"] = options.pop("losses", LossConfig.preset)
        if options.get("w_contrastive") is None:
            # published: the plain sum of the three
            options["w_contrastive"] = 1.0 if options["preset"] == "paper" else LossConfig.w_contrastive
        if options.get("w_projection") is None:
            # the teachers' rows are soft labels too: off where --w-correlation 0 does without
            has_labels = options["preset"] == "default" and options.get("w_correlation", LossConfig.w_correlation) > 0
            has_rows = options.get("labels", DataConfig.labels) == "content"
            options["w_projection"] = PROJECTION if has_labels and has_rows else 0.0
        losses = {f.name: options.pop(f.name) for f in fields(LossConfig) if f.name in options}
        data = {f.name: options.pop(f.name) for f in fields(DataConfig) if f.name in options}
        return cls(losses=LossConfig(**losses), data=DataConfig(**data), **options)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Inverse of `to_dict`."""
        values = dict(values)
        return cls(losses=LossConfig(**values.pop("losses")), data=DataConfig(**values.pop("data")), **values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def needs_projections(self) -> bool:
        """Whether batches compare the teachers' stored projections, so that the store must have a fit."""
        return self.losses.needs_soft_labels and self.data.labels == "content"

    def options(self) -> dict[str, Any]:
        """The options as a flat dict, under the names of the command's options."""
        flat = {k: v for k, v in self.to_dict().items() if k not in ("losses", "data")}
        flat |= asdict(self.losses) | asdict(self.data)
        flat["losses"] = flat.pop("preset")
        return flat


# options that may differ when a run continues: where it stops, how it is logged, and how batches reach the process
MAY_CHANGE = frozenset(
    "output store num_workers max_steps checkpointing_steps keep_checkpoints with_tracking report_to".split()
)


def differences(old: TrainConfig, new: TrainConfig) -> list[str]:
    """Options in which a resumed run differs from the saved one, except those that may change."""
    a, b = old.options(), new.options()
    return [f"{k} {a[k]} -> {b[k]}" for k in a if k not in MAY_CHANGE and a[k] != b[k]]


def read_options(path: Path) -> dict[str, Any]:
    """Options from a file: a run's config.json, or YAML or JSON with flat option names. Raises ConfigError, which names
    the file."""
    import yaml  # installed with accelerate

    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes, options have {MOST_BYTES} at most")
        values = yaml.safe_load(path.read_text())
    except RecursionError:
        raise ConfigError(f"cannot read the configuration {path}: it is nested too deeply") from None
    except (OSError, ValueError, TypeError, OverflowError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the configuration {path}: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"the configuration {path} must hold names and values, not {type(values).__name__}")
    if "config" in values and isinstance(values["config"], dict):
        values = values["config"]
    flat = {str(k).replace("-", "_"): v for k, v in values.items() if k not in ("losses", "data")}
    for part in ("losses", "data"):
        nested = values.get(part)
        if isinstance(nested, dict):
            flat |= nested
        elif nested is not None:
            flat[part] = nested
    if "preset" in flat:
        flat["losses"] = flat.pop("preset")
    for name, value in flat.items():
        if value is not None and not isinstance(value, bool | int | float | str):
            raise ConfigError(f"the configuration {path}: {name} must be a plain value, not a {type(value).__name__}")
        try:
            os.fsencode(f"{name}{value}")
        except UnicodeEncodeError:
            raise ConfigError(f"the configuration {path}: {name!a} holds half a character (a lone surrogate)") from None
    return flat


def write_json(path: Path, value: Any) -> None:
    """Write JSON completely or not at all; NaN and infinities become null, because JSON has neither. Raises OSError,
    which names the file."""
    write(path, to_json(value))


def to_json(value: Any) -> bytes:
    """The text of a JSON file; NaN and infinities become null."""
    return (json.dumps(cleaned(value), indent=2) + "\n").encode()
