"""Which clips of a store are trained on, validated on and judged: the same for every arm and seed."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store import Reader
from store import output as outputs
from student.data.splits import split
from student.experiment.asked import ExperimentError, Sizes

HELD_OUT = 0.2  # share of the training clips that is judged if a store marks no test clips
VALIDATION = 30  # clips at most: each epoch scores them

SPLITS = outputs.marked("splits of student.experiment", b"id,split\r\n", makes_folder=True)


@dataclass(frozen=True)
class Parts:
    """Row numbers of the clips to train on, to validate on and to judge, and a sentence on how the last were chosen."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    held_out: str


def parts(reader: Reader, sizes: Sizes, corpus: str | None = None) -> Parts:
    """The parts of a store, or of one corpus in it. Where no clip is marked test, a fifth of the train clips is held out.

    Raises ExperimentError if clips are too few, SplitError if the store's splits cannot be used.
    """
    chosen = split(reader, None, 0)
    names = reader.clips["corpus"].astype(str)
    train, val, test = (
        rows if corpus is None else rows[names[rows] == corpus]
        for rows in (chosen.rows[name] for name in ("train", "val", "test"))
    )
    labels = np.asarray(reader.clips["label"])
    note = "clips marked test"
    test = test[labels[test] >= 0]
    if not len(test):
        groups = np.array([str(reader.clips["group"][row]) or str(row) for row in train])
        held, by = hold_out(groups, HELD_OUT)
        test, train = train[held], train[~held]
        test = test[labels[test] >= 0]
        note = f"no clip is marked test, so {len(test)} of the train clips were held out by {by}"
        note += "" if by == "group" else "; who speaks in them is not known, so training may have the same people"
    if min(len(train), len(test)) < 2:
        raise ExperimentError(
            f"{reader.path}{f', corpus {corpus},' if corpus else ''} has {len(train)} clips to train on and {len(test)} to "
            "judge; an experiment needs at least two of each: mark splits, or name another --store"
        )
    return Parts(evenly(train, sizes.clips), evenly(val, min(VALIDATION, sizes.judged)), test, note)


def hold_out(groups: np.ndarray, share: float) -> tuple[np.ndarray, str]:
    """Which of the clips with these groups [n] are held out, bool [n], and whether by "group" or by "clip".

    Groups are held out whole if there are several and most have more than one clip; else clips are, since then nobody
    knows who is who.
    """
    rng = np.random.default_rng(0)
    names, index = np.unique(groups, return_inverse=True)
    wanted = max(2, round(share * len(groups)))
    if 1 < len(names) <= len(groups) / 2:
        held = np.zeros(len(groups), bool)
        for name in rng.permutation(len(names)):
            of = index == name
            if held.sum() + of.sum() <= max(wanted, len(groups) // 2):
                held |= of
            if held.sum() >= wanted:
                break
        if held.any():
            return held, "group"
    held = np.zeros(len(groups), bool)
    held[rng.permutation(len(groups))[:wanted]] = True
    return held, "clip"


def evenly(rows: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the rows, evenly spaced."""
    return (
        rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).round().astype(int))] if len(rows) else rows
    )


def write_splits(reader: Reader, chosen: Parts, folder: Path) -> Path:
    """The parts as a file for training, named by its content. Raises Refused, OSError."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("id", "split"))
    for name, rows in (("train", chosen.train), ("val", chosen.val), ("test", chosen.test)):
        writer.writerows((str(reader.clips["id"][row]), name) for row in rows)
    data = text.getvalue().encode(errors="surrogateescape")
    file = folder / f"splits-{hashlib.sha256(data).hexdigest()[:12]}.csv"
    outputs.check([outputs.Output(file, SPLITS)])
    folder.mkdir(parents=True, exist_ok=True)
    outputs.write(file, data)
    return file
