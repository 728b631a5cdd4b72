"""Whether the detector in a run's folder is the one that a checkpoint's figures are of, when the run goes on from there.

A checkpoint keeps the digest of the best weights so far, and the weights themselves only where they are its own. So a detector
that is lost comes back from a checkpoint of its own step, and from no other: then the run does not go on, because it would end
with figures of a detector that is not there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from student.checkpoint import MODEL_FILE, CheckpointError, load_model, weights_digest
from student.config import ConfigError, TrainConfig, differences
from student.run_state import checkpoints, read_state


class Found(Enum):
    """What became of the detector of a run that goes on."""

    KEPT = "there, or none yet"
    TO_RESTORE = "to be written anew from the checkpoint"
    LATER = "of a step that comes after the checkpoint: the run reaches that again, and keeps the best from here on"


def find_detector(
    path: Path, step: int, best: Mapping[str, Any], own: str, config: TrainConfig, store: Mapping[str, str]
) -> Found:
    """What became of the detector beside the checkpoint at `path`, of that step and with those best figures so far ({} before
    the first validation). `own` is the digest of the checkpoint's weights, `store` the identity of the store of today.

    Raises CheckpointError, with what helps, where the detector is lost for good or of another run.
    """
    file = path.parent / MODEL_FILE
    if best and not (_whole(best.get("step")) and _whole(best.get("epoch")) and _is_rank(best.get("rank"))):
        raise CheckpointError(f"{path} has no best figures that can be used; name an earlier checkpoint of the run")
    held = bool(best) and (best["weights"] == own if "weights" in best else best.get("step") == step)
    if not os.path.lexists(file):
        if not best:
            return Found.KEPT
        if held:
            return Found.TO_RESTORE
        raise CheckpointError(f"{file} is missing, and {path.name} {_lacks(path, best)}")
    try:
        model, about = load_model(file)
    except CheckpointError as error:
        if not best:
            return Found.KEPT  # nothing was to be kept of it: the first validation replaces it
        raise CheckpointError(f"{error}; {_without(path, best, held)}") from error
    if best and _is(best, about, weights_digest(model.state_dict())):
        return Found.KEPT
    if not _of_this_run(about, config, store):
        raise CheckpointError(
            f"{file} is the detector of another run, with other options or another store: move it away; "
            f"{_without(path, best, held)}"
        )
    if not best:
        return Found.KEPT
    if _step(about) > step:  # a kill between a validation and the next checkpoint, or a run that goes back
        return Found.TO_RESTORE if held else Found.LATER
    raise CheckpointError(
        f"{file} is of step {_step(about)}, and the best weights of {path.name} are those after step {best.get('step')}: move "
        f"it away; {_without(path, best, held)}"
    )


def _is(best: Mapping[str, Any], about: Mapping[str, Any], digest: str) -> bool:
    """Whether a detector with that header and digest of weights is the best one."""
    if any(about.get(name) != best.get(name) for name in ("threshold", "temperature")):
        return False
    return best["weights"] == digest if "weights" in best else about.get("step") == best.get("step")


def _of_this_run(about: Mapping[str, Any], config: TrainConfig, store: Mapping[str, str]) -> bool:
    try:
        same = not differences(TrainConfig.from_dict(about["config"]), config)
    except (ConfigError, TypeError, ValueError, KeyError, AttributeError):
        return False
    known = about.get("store", {})
    names = ["clips", "fit"] if config.losses.needs_soft_labels else ["clips"]
    return same and all(known.get(name) == store[name] for name in names)


def _step(about: Mapping[str, Any]) -> int:
    found = about.get("step")
    return found if isinstance(found, int) else 0


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_rank(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(x, int | float) for x in value)


def _without(path: Path, best: Mapping[str, Any], held: bool) -> str:
    """What comes of it when the file that is in the way is gone."""
    if not best or held:
        return f"without it, the run goes on from {path.name} and writes its own"
    return f"but {path.name} {_lacks(path, best)}"


def _lacks(path: Path, best: Mapping[str, Any]) -> str:
    for other in reversed(checkpoints(path.parent)):
        try:
            state = read_state(other)
        except CheckpointError:
            continue
        mine = state.get("best") or {}
        if other != path and state["step"] <= best.get("step", 0) and (not mine or mine.get("step") == state["step"]):
            helps = f"go on from {other}"
            break
    else:
        helps = "start a new --output"
    return (
        f"does not hold the best weights so far, those after step {best.get('step')}: bring the file back from a copy, or "
        f"{helps}"
    )
