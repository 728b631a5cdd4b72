"""Trains the arms of an experiment: the same student, data, steps and seeds, with other options.

A run that finished is not trained again, one that was stopped continues, and a folder that holds a run with other
options is refused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import store
from student import recipes
from student.config import ConfigError, DataConfig, LossConfig, TrainConfig, differences, read_options
from student.experiment.asked import Asked, ExperimentError
from student.run.identity import store_identity
from student.training.plan import Plan
from student.training.trainer import Trainer

log = logging.getLogger(__name__)

KNOWN = {one.name for kind in (TrainConfig, LossConfig, DataConfig) for one in fields(kind)}
OWN = frozenset(["store", "output", "splits", "seed", "threads", "max_steps"])  # what an experiment sets itself


@dataclass(frozen=True)
class Arm:
    """One way of training: its name, what it means, and how its options differ from the defaults of `student.train`."""

    name: str
    meaning: str
    options: Mapping[str, Any] = field(default_factory=dict)
    store: str | None = None  # None = the experiment's first


class Interrupted(ExperimentError):
    """A signal ended a training run; the same command continues it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"stopped by signal {code - 128}; the same command goes on where it stopped")
        self.exit_code = code


def train(asked: Asked, arm: Arm, seed: int, splits: Path) -> Path:
    """Train one arm with one seed, or find it trained; the folder of its detector.

    Raises ExperimentError if the folder holds another run, Interrupted after a signal, and the errors of training.
    """
    folder = asked.output / "runs" / f"{arm.name}-{seed}"
    config = _config(asked, arm, seed, splits, folder)
    told = _finished(folder)
    if told is not None:
        others = differences(TrainConfig.from_dict(told["config"]), config)
        now = store_identity(store.open(config.store))
        others += [f"the store's {name} have changed" for name in ("clips", "fit") if told["store"][name] != now[name]]
        if others:
            raise ExperimentError(
                f"{folder} holds a run with other options ({others[0]}): choose another --output, or remove it"
            )
        log.info("%s, seed %d: trained already", arm.name, seed)
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    log.info("%s, seed %d: training %d epochs", arm.name, seed, config.epochs)
    code = Trainer(config, "latest").run()
    if code:
        raise Interrupted(code)
    return folder


def shared(asked: Asked) -> dict[str, Any]:
    """The options that all arms have from a file or a recipe. Raises ExperimentError for one that the experiment sets."""
    if asked.config is None:
        return {}
    try:
        options = read_options(recipes.find(asked.config))
    except ConfigError as error:
        raise ExperimentError(str(error)) from error
    for name in ("exclude", "picture", "epochs", "model"):  # in a run's config.json or a recipe, and not asked for here
        options.pop(name, None)
    if own := sorted(options.keys() & OWN):
        raise ExperimentError(f"{asked.config} sets {own[0]}, which the experiment chooses for every run; leave it out")
    if unknown := sorted(options.keys() - KNOWN):
        raise ExperimentError(f"{asked.config} sets {unknown[0]}, which is not an option of student.train")
    try:
        TrainConfig.from_options(store="", output="", **options)
    except (TypeError, ValueError, ConfigError) as error:
        raise ExperimentError(f"{asked.config} has a value that cannot be used: {error}") from error
    return options


def _config(asked: Asked, arm: Arm, seed: int, splits: Path, folder: Path) -> TrainConfig:
    """The options of a run; its epochs are whole and take about `sizes.steps` steps, so that the schedule ends with
    them."""
    options = {**shared(asked), "model": asked.model, "threads": asked.threads, "seed": seed, **arm.options}
    config = TrainConfig.from_options(
        store=arm.store or asked.stores[0], output=str(folder), splits=str(splits), **options
    )
    plan = Plan.of(config, None)
    plan.check(1, False)
    windows = int((plan.corpus.length[plan.corpus.rows] // plan.data.window).sum())
    each = max(1, windows // config.data.batch_size)
    return replace(plan.config, epochs=max(1, round(asked.sizes.steps / each)))


def _finished(folder: Path) -> dict[str, Any] | None:
    """The config.json of a run that finished in `folder`; None if there is none. Raises ExperimentError."""
    try:
        if not json.loads((folder / "results.json").read_bytes())["finished"]:
            return None
        told: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
        return told
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ExperimentError(f"{folder} holds a run that cannot be read ({error}): move it away") from error
