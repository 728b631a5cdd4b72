"""Seeded damage to the files of a training run: bits flipped, ends cut off, files gone, and what became of whoever read them.

    for file, kind, dice in plan(run, seed=0, count=100):
        with damaged(file, kind, dice) as what:
            print(file, what, detector_outcome(run, wanted))

An outcome is REFUSED (one line that names the file), SAME (what was read is what was written) or a sentence that says what went
silently wrong. Damage may have no other result.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from student import checkpoint, run_state
from student.header import Header
from student.models import build
from student.training.optimize import average

REFUSED, SAME = "refused", "same"
KINDS = ("flip", "flip in front", "cut", "remove")
FRONT = 2000  # bytes, where headers are


def flip(file: Path, dice: np.random.Generator, front: bool = False) -> str:
    """One bit turned over, anywhere or in the header."""
    data = bytearray(file.read_bytes())
    at, bit = int(dice.integers(min(len(data), FRONT) if front else len(data))), int(dice.integers(8))
    data[at] ^= 1 << bit
    file.write_bytes(data)
    return f"bit {bit} of byte {at} of {len(data)} turned over"


def cut(file: Path, dice: np.random.Generator) -> str:
    """The beginning alone, perhaps none of it."""
    data = file.read_bytes()
    length = int(dice.integers(len(data)))
    file.write_bytes(data[:length])
    return f"cut to {length} of {len(data)} bytes"


def remove(file: Path, dice: np.random.Generator) -> str:
    file.unlink()
    return "removed"


def plan(folder: Path, seed: int, count: int) -> Iterator[tuple[Path, str, np.random.Generator]]:
    """Files below `folder` and kinds of damage in turn, each with its own dice: the same for the same seed."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    for k in range(count):
        yield found[k % len(found)], KINDS[k // len(found) % len(KINDS)], np.random.default_rng([seed, k])


def damage(file: Path, kind: str, dice: np.random.Generator) -> str:
    """Do it for good; gives what was done."""
    if kind.startswith("flip"):
        return flip(file, dice, front=kind == "flip in front")
    return {"cut": cut, "remove": remove}[kind](file, dice)


@contextmanager
def damaged(file: Path, kind: str, dice: np.random.Generator) -> Iterator[str]:
    """`file` with that damage while the block runs, then as it was."""
    kept = file.read_bytes()
    try:
        yield damage(file, kind, dice)
    finally:
        file.write_bytes(kept)


def detector_outcome(run: Path, wanted: dict[str, torch.Tensor], header: Header) -> str:
    """What loading the detector of a run came to, which was written with those weights and that header."""
    try:
        model, told = checkpoint.load_model(run)
    except checkpoint.CheckpointError as error:
        return REFUSED if _is_line(error, run / checkpoint.MODEL_FILE) else f"no line for a person: {error!r}"
    state = model.state_dict()
    if told == header and state.keys() == wanted.keys() and all(torch.equal(state[k], v) for k, v in wanted.items()):
        return SAME
    return "a detector was loaded that is another"


def checkpoint_outcome(path: Path, wanted: dict[str, dict[str, torch.Tensor]], state: dict, ema: float = 0.0) -> str:
    """What going on from a checkpoint came to, which holds those tensors by part (see `parts`) and that state."""
    model, optimizer, mean = fresh(ema)
    before = parts(model, optimizer, mean)
    try:
        told = run_state.load_state(path, run_state.Tensors(model, optimizer, mean))
    except checkpoint.CheckpointError as error:
        if not _same(before, parts(model, optimizer, mean)):
            return "it was refused, but a part of it was loaded"
        return REFUSED if _is_line(error, path) else f"no line for a person: {error!r}"
    same = told == state and _same(wanted, parts(model, optimizer, mean))
    return SAME if same else "a state was loaded that is another"


def fresh(ema: float = 0.0, **options) -> run_state.Tensors:
    """A small student, its optimizer after a step, and its running average."""
    torch.manual_seed(5)
    model = build("lite", **{"width": 16, "trunk": (4, 8), "temporal_layers": 1, "mels": 16, **options})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    mean = average(model, ema) if ema else None
    sum(p.square().sum() for p in model.parameters()).backward()
    optimizer.step()
    if mean is not None:
        mean.update_parameters(model)
    return run_state.Tensors(model, optimizer, mean)


def parts(model, optimizer, mean) -> dict[str, dict[str, torch.Tensor]]:
    """Everything that a checkpoint must bring back."""
    moments = {f"{i}.{k}": v for i, of in optimizer.state_dict()["state"].items() for k, v in of.items()}
    found = {"model": model.state_dict(), "optimizer": moments, "average": mean.state_dict() if mean else {}}
    return {part: {k: v.clone() for k, v in tensors.items()} for part, tensors in found.items()}


def copied(source: Path, target: Path) -> Path:
    """A run to be damaged, without what belongs to the process that made it."""
    return Path(shutil.copytree(source, target, ignore=shutil.ignore_patterns(".concord*")))


def _same(a: dict[str, dict[str, torch.Tensor]], b: dict[str, dict[str, torch.Tensor]]) -> bool:
    return all(a[p].keys() == b[p].keys() and all(torch.equal(v, b[p][k]) for k, v in a[p].items()) for p in a)


def _is_line(error: Exception, place: Path) -> bool:
    return len(str(error).splitlines()) == 1 and str(place) in str(error)
