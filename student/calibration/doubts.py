"""References that look wrong themselves: their own lips and voice do not agree, though the user calls them genuine.

A recording's gap is the score of its own pairs above that of its lips with other sound. A gap that is far below the other
recordings', by more than chance, is named and the recording left out. Real ones must stay even where the fit tells little:
leaving out the worst of them would set the limits too high for the next genuine video.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from store.similarity import Fit
from student.calibration import recordings as cutting
from student.calibration.recordings import MOST, SHORTEST, Recording

FAR = 0.25  # of the other recordings' median gap
SURE = 2.0  # standard errors


def disagreeing(recordings: Sequence[Recording], fit: Fit) -> list[int]:
    """The numbers of the recordings whose own lips and voice do not agree."""
    pieces = cutting.cut(recordings, SHORTEST, 2 * MOST)
    if len(pieces) < 2:
        return []
    scores = cutting.table(recordings, pieces, lambda _: fit)
    own = np.diag(scores)
    gap = own - (scores.sum(1) - own) / (len(scores) - 1)
    of = np.array([piece.recording for piece in pieces])
    spread = _spread(gap, of)
    found = []
    for k in np.unique(of):
        mine, rest = gap[of == k], gap[of != k]
        error = spread / np.sqrt(len(mine))
        if len(rest):
            usual = float(np.median([gap[of == other].mean() for other in np.unique(of) if other != k]))
            is_wrong = mine.mean() < FAR * usual and mine.mean() + SURE * error < usual
        else:
            is_wrong = mine.mean() < error  # alone: it must at least agree better than chance
        if is_wrong:
            found.append(int(k))
    return found


def _spread(gap: np.ndarray, of: np.ndarray) -> float:
    """Standard deviation of a piece's gap within its recording; over all pieces where each has one."""
    inside = np.concatenate([gap[of == k] - gap[of == k].mean() for k in np.unique(of)])
    free = len(gap) - len(np.unique(of))
    return float(np.sqrt((inside**2).sum() / free)) if free >= 5 else float(gap.std())
