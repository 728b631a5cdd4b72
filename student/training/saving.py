"""Saves the state of a run as a checkpoint, and resumes from one: all processes succeed, or all raise."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from student import run_state
from student.checkpoint import CheckpointError, SaveError, weights_digest
from student.config import ConfigError, TrainConfig, differences
from student.models.weights import Loaded
from student.run.detector import Found, find_detector
from student.run.state import State
from student.training import launch
from student.training.learner import Learner
from student.training.plan import Plan
from student.training.step import method

log = logging.getLogger(__name__)


def save(folder: Path, plan: Plan, learner: Learner, state: State, threads: int) -> None:
    """Write a checkpoint from the main process; if that fails, all processes raise SaveError."""
    scaler = learner.accelerator.scaler
    told = state.to_json() | {
        "threads": threads,
        "processes": learner.accelerator.num_processes,
        "config": plan.config.to_dict(),
        "init_from": asdict(learner.init_from) if learner.init_from else None,
        "store": plan.identity,
        "method": method(plan.config),
        "scaler": scaler.state_dict() if scaler is not None else {},
    }
    tensors = run_state.Tensors(learner.student, learner.optimizer, learner.average)
    keep = plan.config.keep_checkpoints
    launch.by_main(
        learner.accelerator, lambda: run_state.save_state(folder, state.step, told, keep, tensors), raises=SaveError
    )


def go_on(path: Path, plan: Plan, learner: Learner, threads: int) -> tuple[State, Found]:
    """Load the checkpoint at `path` into the learner; returns its state, and the state of the detector in the folder.

    Raises ConfigError for other options or other data than the run began with, CheckpointError for files that cannot be
    used.
    """
    saved = run_state.read_state(path)
    try:
        changed = differences(TrainConfig.from_dict(saved["config"]), plan.config)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path.name} holds options of another release ({error})") from error
    if changed:
        raise ConfigError(f"{path.name} was made with other options ({'; '.join(changed)}): do not change them")
    _check_data(path.name, saved["store"], plan)
    processes = learner.accelerator.num_processes
    if saved.get("threads") != threads or saved.get("processes") != processes:
        log.warning(
            "processes x threads of each were %s x %s and are %d x %d now: the run continues, but not with the same bits",
            saved.get("processes"), saved.get("threads"), processes, threads,
        )  # fmt: skip
    try:
        state, init_from = State.parse(saved), _loaded(saved.get("init_from"))
    except ValueError as error:
        raise CheckpointError(f"{path} has {error}; name an earlier checkpoint of the run") from error
    if state.epoch < plan.config.epochs and saved.get("method", "") != method(plan.config):
        raise ConfigError(
            f"{path.name} was made by a release that trains in another way, so the run would be half of each: finish it with "
            f"that release, or start a new --output (--init-from {path}/model.safetensors takes its weights)"
        )
    told = run_state.load_state(path, run_state.Tensors(learner.student, learner.optimizer, learner.average))
    if learner.accelerator.scaler is not None and told.get("scaler"):
        learner.accelerator.scaler.load_state_dict(told["scaler"])
    learner.init_from = init_from
    found = launch.by_main(
        learner.accelerator,
        lambda: find_detector(path, state, weights_digest(learner.detector.state_dict()), plan.config, plan.identity),
        raises=CheckpointError,
    )
    if state.epoch >= plan.config.epochs:
        log.info("%s is the end of the run: there is nothing left to do", path.name)
    else:
        log.info("resuming from %s: epoch %d, step %d", path.name, state.epoch + 1, state.step)
    shared: list[Found] = gather_object([found])
    return state, shared[0]


def _check_data(name: str, saved: dict[str, str], plan: Plan) -> None:
    """Raise ConfigError if a resumed run would train on other data than it began with."""
    now, path = plan.identity, plan.config.store
    as_it_was = "start a new --output, or restore the store as it was"
    if saved.get("clips") != now["clips"]:
        raise ConfigError(
            f"{name} was trained on another store, or the store has other clips, labels or splits now: start a new --output"
        )
    if plan.config.needs_projections and saved.get("fit") != now["fit"]:
        raise ConfigError(
            f"the fit of {path} is not the one that {name} was trained with (a --refit, or other teachers): its soft labels "
            f"differ: {as_it_was}"
        )
    if saved.get("strata") != now.get("strata"):
        raise ConfigError(f"sources or methods in {path} are not those that {name} was trained with: {as_it_was}")
    if saved.get("frames") != now["frames"]:
        raise ConfigError(
            f"flags or labels of frames in {path} are not those that {name} was trained with: {as_it_was}"
        )
    if now["shards"] and saved.get("shards") and saved["shards"] != now["shards"]:
        raise ConfigError(
            f"pictures, sound or projections in {path} are not those that {name} was trained with: {as_it_was}"
        )


def _loaded(told: Any) -> Loaded | None:
    """The file with the initial weights, from a checkpoint's JSON. ValueError for an invalid value."""
    if told is None:
        return None
    try:
        return Loaded(told["path"], told["sha256"], told["taken"], tuple(told["left_aside"]), tuple(told["kept"]))
    except (KeyError, TypeError) as error:
        raise ValueError("no init_from that can be used") from error
