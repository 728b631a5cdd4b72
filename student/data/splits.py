"""Which clips of a store a run trains, validates and tests on, and the weight of each.

The store's own `split` column decides (empty = train), or a file of id, split, weight. If no clip is marked for
validation, a tenth of the training clips is taken by group, so that no identity is on both sides. If there is only one
group, or each clip is a group of its own (identities are unknown), it is taken by clip, with a warning: validation may
then share faces and voices with training.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from concord.errors import ConcordError
from concord.text import counted
from store import Reader
from store.formats import splits
from student.config import SPLITS

log = logging.getLogger(__name__)

VAL_SHARE = 0.1


class SplitError(ConcordError, ValueError):
    """A split cannot be used; one line that says what to do."""


@dataclass(frozen=True)
class Split:
    """Row numbers [n] of the clips table by split, among finished clips; `listed` also counts unfinished ones.

    weight f4 [clips]: weight of each clip's label in training. `by`: how validation clips were chosen (store, file,
    group, lone, clip or none).
    """

    rows: dict[str, np.ndarray]
    listed: dict[str, int]
    weight: np.ndarray
    by: str


def split(reader: Reader, file: Path | None = None, seed: int = 0, need_val: bool = True) -> Split:
    """Splits of a store; raises SplitError if the file cannot be used or no clip is left to train on."""
    clips = reader.clips
    names = np.array([str(s) or "train" for s in clips["split"]], dtype=object)
    weight = np.ones(len(names), np.float32)
    by = "store"
    if file is not None:
        names, weight = _from_file(file, clips["id"])
        by = "file"
    unknown = sorted({str(n) for n in names} - set(SPLITS) - {""})
    if unknown:
        raise SplitError(f"unknown split {unknown[0][:40]!a}; use {', '.join(SPLITS)} or leave it empty")
    done = np.asarray(clips["done"]).astype(bool) & (weight > 0)
    if need_val and not (done & (names == "val")).any():
        names, by = _hold_out(names, clips["group"], done & (names == "train"), seed)
    rows = {name: np.flatnonzero(done & (names == name)) for name in SPLITS}
    listed = {name: int((names == name).sum()) for name in SPLITS}
    return Split(rows, listed, weight, by)


def _hold_out(names: np.ndarray, groups: np.ndarray, train: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """Move about a tenth of the training clips to validation, in whole groups if there are several."""
    rows = np.flatnonzero(train)
    names = names.copy()
    if len(rows) < 2:
        return names, "none"
    rng = np.random.default_rng([seed, 0x5B117])
    wanted = max(1, round(VAL_SHARE * len(rows)))
    keys = np.array([str(groups[r]) for r in rows], dtype=object)
    distinct = sorted(set(keys) - {""})
    if len(distinct) > 1:
        chosen: list[int] = []
        for group in rng.permutation(np.array(distinct, dtype=object)):
            members = rows[keys == group]
            # a group with half of all clips would leave too little to train on
            if len(chosen) + len(members) <= max(wanted, len(rows) // 2):
                chosen.extend(int(r) for r in members)
            if len(chosen) >= wanted:
                break
        if chosen:
            names[chosen] = "val"
            if len(distinct) < len(rows):
                return names, "group"
            log.warning(
                "each of the %d training clips is a group of its own, so nobody knows who is in them: validation and training "
                "may share faces and voices; give identities in a manifest or mark a split for figures on new people",
                len(rows),
            )
            return names, "lone"
    log.warning(
        "the training clips form one group: validation clips are split off by clip, so validation and training share "
        "faces and voices; mark a split or give --splits for figures on new people"
    )
    names[rng.permutation(rows)[:wanted]] = "val"
    return names, "clip"


def _from_file(file: Path, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split and weight of every clip from a table of id, split and (optional) weight; clips that it does not list are
    not used."""
    try:
        listed = splits.read(file.read_bytes(), str(file), len(ids))
    except OSError as error:
        raise SplitError(f"{file}: cannot read the splits: {error}") from error
    except ValueError as error:
        raise SplitError(str(error)) from error
    rows = {str(name): row for row, name in enumerate(ids)}
    names, weight = np.full(len(ids), "", dtype=object), np.zeros(len(ids), np.float32)
    for name, (part, number) in listed.items():
        if (row := rows.get(name)) is not None:
            names[row], weight[row] = part, number
    absent = len(listed.keys() - rows.keys())
    if absent == len(listed):
        raise SplitError(f"{file} lists no clip of this store; its ids must be the store's")
    if absent:
        log.warning("%s lists %s that the store does not have", file, counted(absent, "clip"))
    return names, weight
