"""Checks, when a run resumes, whether the detector in its folder belongs to the checkpoint's figures.

A checkpoint keeps the digest of the best weights so far, and the weights themselves only if they are its own. So a lost
detector can be restored only from the checkpoint of its own step. From any other checkpoint the run does not resume,
because it would end with figures of a detector that does not exist.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from student.checkpoint import MODEL_FILE, CheckpointError, load_model, weights_digest
from student.config import ConfigError, TrainConfig, differences
from student.header import Header
from student.run.state import Best, State
from student.run_state import checkpoints, read_state


class Found(Enum):
    """The state of the detector when a run resumes."""

    KEPT = "there, or none yet"
    TO_RESTORE = "to be restored from the checkpoint"
    LATER = "from a step after the checkpoint: the run reaches that step again, and keeps the best from here on"


def find_detector(path: Path, state: State, own: str, config: TrainConfig, store: Mapping[str, str]) -> Found:
    """The state of the detector beside the checkpoint at `path`, which holds `state`. `own` is the digest of the
    checkpoint's weights, `store` the present identity of the store.

    Raises CheckpointError, with advice, if the detector is lost for good or belongs to another run.
    """
    file, best = path.parent / MODEL_FILE, state.best
    held = best is not None and (best.weights == own if best.weights else best.step == state.step)
    if not os.path.lexists(file):
        if best is None:
            return Found.KEPT
        if held:
            return Found.TO_RESTORE
        raise CheckpointError(f"{file} is missing, and {path.name} {_lacks(path, best)}")
    try:
        model, header = load_model(file)
    except CheckpointError as error:
        if best is None:
            return Found.KEPT  # no detector was kept yet: the first validation replaces it
        raise CheckpointError(f"{error}; {_without(path, best, held)}") from error
    if best is not None and _is(best, header, weights_digest(model.state_dict())):
        return Found.KEPT
    if not _of_this_run(header, config, store):
        raise CheckpointError(
            f"{file} is the detector of another run, with other options or another store: move it away; "
            f"{_without(path, best, held)}"
        )
    if best is None:
        return Found.KEPT
    if header.step > state.step:  # a kill after a validation, or a run that resumes from an earlier checkpoint
        return Found.TO_RESTORE if held else Found.LATER
    raise CheckpointError(
        f"{file} is from step {header.step}, and the best weights of {path.name} are from step {best.step}: move "
        f"it away; {_without(path, best, held)}"
    )


def _is(best: Best, header: Header, digest: str) -> bool:
    """Whether a detector with this header and digest of weights is the best one."""
    figures = best.figures
    if (header.threshold, header.temperature) != (figures.threshold, figures.temperature):
        return False
    return best.weights == digest if best.weights else header.step == best.step


def _of_this_run(header: Header, config: TrainConfig, store: Mapping[str, str]) -> bool:
    try:
        same = not differences(TrainConfig.from_dict(header.config), config)
    except (ConfigError, TypeError, ValueError, KeyError, AttributeError):
        return False
    names = ["clips", "fit"] if config.needs_projections else ["clips"]
    return same and all(header.store.get(name) == store[name] for name in names)


def _without(path: Path, best: Best | None, held: bool) -> str:
    """What happens once the file in the way is moved."""
    if best is None or held:
        return f"without it, the run continues from {path.name} and writes its own"
    return f"but {path.name} {_lacks(path, best)}"


def _lacks(path: Path, best: Best) -> str:
    for other in reversed(checkpoints(path.parent)):
        try:
            state = State.parse(read_state(other))
        except (CheckpointError, ValueError):
            continue
        if other != path and state.step <= best.step and (state.best is None or state.best.step == state.step):
            helps = f"resume from {other}"
            break
    else:
        helps = "start a new --output"
    return f"does not hold the best weights so far, those of step {best.step}: restore the file from a copy, or {helps}"
