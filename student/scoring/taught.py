"""Which scored clips the scorers have learned from: the teachers' fit, and the detector in training and for its threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from store import Reader, seen
from store.seen import Seen
from student.header import Header
from student.scoring.score import Trial

BY = {  # scorer: what its scores have learned from
    "student": ("detector", "threshold"),
    "teacher": ("fit",),
    "teacher_offset": ("fit",),
    "teacher_margin": ("fit",),
    "both": ("fit", "detector", "threshold"),
}


@dataclass(frozen=True)
class Taught:
    """By "fit", "detector" (its training) and "threshold": whether it has learned from a clip, bool [clips] for some rows
    of the table, False for others; None where that is not recorded."""

    masks: Mapping[str, np.ndarray | None]

    @classmethod
    def of(
        cls, reader: Reader, header: Header, rows: np.ndarray, own: Mapping[str, np.ndarray] | None = None
    ) -> Taught:
        """What is known of the clips `rows`. `own` are rows of the detector's clips by split, for one that does not list
        them; without a fit there is no teacher that could have seen them."""
        masks = {"fit": _mask(reader, rows, reader.fit.seen)} if reader.fit is not None else {}
        for who, split in (("detector", "train"), ("threshold", "val")):
            masks[who] = _mask(reader, rows, header.clips.get(split))
            if masks[who] is None and own:
                masks[who] = np.isin(np.arange(len(reader)), np.intersect1d(rows, own[split]))
        return cls(masks)

    def counts(self, items: Sequence[Trial]) -> dict[str, Seen]:
        """How many of the clips of these trials were seen."""
        rows = np.unique([row for t in items for row in (t.lips, t.sound)])
        return {who: Seen.count(mask if mask is None else mask[rows], rows) for who, mask in self.masks.items()}

    def by_scorer(self, items: Sequence[Trial]) -> dict[str, np.ndarray | None]:
        """Whether each scorer has learned from the lips or the sound of each trial, bool [n]; None if not recorded."""
        pairs = np.array([(t.lips, t.sound) for t in items])
        found = {who: mask if mask is None else mask[pairs].any(1) for who, mask in self.masks.items()}
        return {scorer: _either([found[who] for who in by if who in found]) for scorer, by in BY.items()}


def _mask(reader: Reader, rows: np.ndarray, keys: np.ndarray | None) -> np.ndarray | None:
    found = seen.known(keys, reader, rows)
    if found is None:
        return None
    mask = np.zeros(len(reader), bool)
    mask[rows] = found
    return mask


def _either(masks: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Any of several masks; None if one is unknown and no other holds anywhere."""
    known = [mask for mask in masks if mask is not None]
    any_ = np.logical_or.reduce(known) if known else None
    return any_ if any_ is not None and (len(known) == len(masks) or any_.any()) else None
