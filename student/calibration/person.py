"""Calibration by one person's genuine videos: limits, probabilities and the errors that are left, for videos of a length.

Own pieces and swaps among them say how genuine and swapped videos of this person score, so the two limits need no other
people. The errors are measured on pieces that the limits have not seen: recording by recording where there are several,
else on stretches of the one. With enough speech a cca of the person's own is tried, and taken where it tells held-out
pieces from swaps better; the videos that are judged have no part in this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from store import similarity
from store.layout import FPS
from store.similarity import Fit, Moments
from store.similarity.limits import RATE, least_units
from student.calibration import recordings as cutting
from student.calibration.limits import limits
from student.calibration.recordings import MOST, SHORTEST, Piece, Recording

PIECES = 20  # at least; of rarer false alarms than 1 in 20 as many more as it takes to hold them (`Person.needed`)
FOLDS = 10  # parts of the recordings that are held out in turn
BLOCKS = 5  # parts of one recording
OWN_SECONDS = 60  # of speech from which a fit of the person's own is tried
BETTER = 0.01  # by which its AUC on held-out pieces must exceed the given fit's
OWN_DIMS, OWN_SHRINKAGE = 16, 0.2
NAME = "this person"  # the corpus of the calibration in the fit
TOO_MANY = 3  # times the promised false alarms, measured: then there is no verdict


@dataclass(frozen=True)
class Errors:
    """Shares on held-out pieces: own ones called fake, swapped and shifted ones called real, own ones decided."""

    false_alarms: float
    misses: float
    misses_shifted: float | None
    decided: float


@dataclass(frozen=True)
class Calibrated:
    """A fit with the map of NAME; similarities below `fake` are fake, from `real` on real; whether the fit is the person's
    own; the pieces that it rests on, their frames, the recordings, their seconds of speech; the errors; and the share of false
    alarms that was asked for."""

    fit: Fit
    fake: float
    real: float
    is_own: bool
    pieces: int
    piece_frames: int
    recordings: int
    seconds: float
    errors: Errors
    alarms: float = RATE

    @property
    def lacks(self) -> str:
        """Why no verdict may rest on it; "" if one may."""
        if self.fit.calibration[NAME]["clip"][0] <= 0:
            return "in the reference, own sound fits the lips no better than another's"
        if self.errors.false_alarms > TOO_MANY * self.alarms:
            return f"of pieces held out of the reference, {self.errors.false_alarms:.0%} would be called fake"
        return ""


@dataclass(frozen=True)
class Person:
    """The usable recordings of one person, the fit that compares them, and the share of genuine videos that may be called
    fake."""

    recordings: Sequence[Recording]
    fit: Fit
    alarms: float = RATE
    _known: dict[tuple[int, str], Calibrated | None] = field(default_factory=dict, repr=False)

    @property
    def needed(self) -> int:
        """Pieces without which no limit holds the share."""
        return max(PIECES, least_units(self.alarms))

    def seconds(self, without: str = "") -> float:
        """Seconds of speech with a face, without the recording of that SHA-256."""
        return sum(len(one.lips) for one in self.recordings if one.sha256 != without) / FPS

    def pieces(self, without: str = "") -> int:
        """Pieces of SHORTEST frames or more, without the recording of that SHA-256."""
        return len(cutting.cut([one for one in self.recordings if one.sha256 != without], SHORTEST))

    def at(self, frames: int, without: str = "") -> Calibrated | None:
        """The calibration for a video with that many frames of evidence, without the recording of that SHA-256; None if
        there are fewer than `needed` pieces of SHORTEST frames."""
        mine = [one for one in self.recordings if one.sha256 != without]
        long = max(SHORTEST, min(frames, int(self.seconds(without) * FPS) // self.needed))
        if (long, without) not in self._known:
            self._known[long, without] = _calibrated(mine, self.fit, long, self.alarms, self.needed)
        return self._known[long, without]


def _calibrated(mine: Sequence[Recording], fit: Fit, frames: int, alarms: float, needed: int) -> Calibrated | None:
    pieces = cutting.cut(mine, frames, max(MOST, needed))
    if len(pieces) < needed and frames > SHORTEST:  # short recordings give fewer than their sum
        pieces = cutting.cut(mine, SHORTEST, max(MOST, needed))
    if len(pieces) < needed:
        return None
    fold = folds(pieces)
    scores = cutting.table(mine, pieces, lambda _: fit)
    chosen, is_own = fit, False
    seconds = sum(len(one.lips) for one in mine) / FPS
    if seconds >= OWN_SECONDS and fit.kind in similarity.LEARNED:
        found = _own_fit(mine, pieces, fold)
        if found and _auc(found[1]) >= _auc(scores) + BETTER:
            chosen, scores, is_own = found[0], found[1], True
    low, high = limits(np.diag(scores), _others(scores), alarms)
    errors = measured(scores, fold, cutting.shifted_scores(mine, pieces, chosen), alarms)
    maps = {"clip": similarity.fit_logistic(np.diag(scores), _others(scores)), **_near(mine, chosen)}
    between = similarity.logistic(np.array([low, high]), *maps["clip"])
    # a decision never contradicts the probability
    below, above = min(float(between[0]), 0.5), max(float(between[1]), 0.5)
    typical = int(np.median([len(piece.lips) for piece in pieces]))
    which = sorted({piece.recording for piece in pieces})
    return Calibrated(
        chosen.calibrated(NAME, maps), below, above, is_own,
        len(pieces), typical, len(which), seconds, errors, alarms,
    )  # fmt: skip


def folds(pieces: Sequence[Piece]) -> np.ndarray:
    """The fold of each piece: whole recordings, at most FOLDS folds; BLOCKS stretches of a single recording."""
    recording = np.array([piece.recording for piece in pieces])
    names, place = np.unique(recording, return_inverse=True)
    if len(names) > 1:
        return place * min(FOLDS, len(names)) // len(names)
    return np.arange(len(pieces)) * BLOCKS // len(pieces)


def measured(scores: np.ndarray, fold: np.ndarray, shifted: np.ndarray, alarms: float = RATE) -> Errors:
    """Errors of limits that are set without each fold in turn, on that fold's pieces; `scores` as in `recordings.table`,
    `shifted` [shifts, pieces] with NaN where there is none."""
    wrong, misses, moved, decided = [], [], [], []
    apart = ~np.eye(len(scores), dtype=bool)
    for part in np.unique(fold):
        out = fold == part
        rest = scores[~out][:, ~out]
        low, high = limits(np.diag(rest), _others(rest), alarms)
        own, swapped = np.diag(scores)[out], scores[out][apart[out]]
        late = shifted[:, out]
        wrong.append(own < low)
        decided.append((own < low) | (own >= high))
        misses.append(swapped >= high)
        moved.append(late[np.isfinite(late)] >= high)
    late = np.concatenate(moved)
    return Errors(
        float(np.concatenate(wrong).mean()),
        float(np.concatenate(misses).mean()),
        float(late.mean()) if len(late) else None,
        float(np.concatenate(decided).mean()),
    )


def _own_fit(mine: Sequence[Recording], pieces: Sequence[Piece], fold: np.ndarray) -> tuple[Fit, np.ndarray] | None:
    """A cca of the recordings, and the table of scores in which each piece is scored by a cca that has not learned from
    its fold; None if there are too few frames."""
    context = similarity.context_for(mine[0].vsr.shape[1])
    parts = [
        _moments(mine, [p for p, k in zip(pieces, fold, strict=True) if k == part], context) for part in np.unique(fold)
    ]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    if any((whole - part).count <= OWN_DIMS for part in parts):
        return None
    without = [similarity.fit_cca(whole - part, context, OWN_DIMS, OWN_SHRINKAGE) for part in parts]
    number = {int(part): k for k, part in enumerate(np.unique(fold))}
    scores = cutting.table(mine, pieces, lambda i: without[number[int(fold[i])]])
    return similarity.fit_cca(whole, context, OWN_DIMS, OWN_SHRINKAGE), scores


def _moments(mine: Sequence[Recording], pieces: Sequence[Piece], context: int) -> Moments:
    found: Moments | None = None
    for k in sorted({piece.recording for piece in pieces}):
        wide = similarity.with_context(mine[k].vsr.astype(np.float32), context)
        lips = np.concatenate([piece.lips for piece in pieces if piece.recording == k])
        now = Moments.of(wide[lips], mine[k].asr[lips - mine[k].shift].astype(np.float32))
        found = now if found is None else found + now
    assert found is not None
    return found


def _near(mine: Sequence[Recording], fit: Fit) -> dict[str, tuple[float, float]]:
    """The maps of 5 and 25 frames: own pairs against the sound of the next recording, of a single one against its own
    sound half its length later."""
    here = cutting.projected(mine, fit)
    lips, sound = [one.lips for one in here], [one.lips - one.shift for one in here]
    found = {}
    for window in ("5", "25"):
        own, swapped = [], []
        for k, one in enumerate(here):
            other = (k + 1) % len(here)
            turned = np.roll(sound[k], len(sound[k]) // 2) if other == k else sound[other]
            n = min(len(lips[k]), len(turned))
            if n < SHORTEST:
                continue
            own.append(similarity.scores(one.vsr[lips[k]], one.asr[sound[k]], fit, window))
            swapped.append(similarity.scores(one.vsr[lips[k][:n]], here[other].asr[turned[:n]], fit, window))
        found[window] = similarity.fit_logistic(np.concatenate(own), np.concatenate(swapped))
    return found


def _others(scores: np.ndarray) -> np.ndarray:
    others: np.ndarray = scores[~np.eye(len(scores), dtype=bool)]
    return others


def _auc(scores: np.ndarray) -> float:
    return similarity.auc(np.diag(scores), _others(scores))
