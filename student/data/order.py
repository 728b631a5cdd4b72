"""Which windows an epoch has, in which order, and with whose sound: functions of (seed, epoch, position) only.

With `--balance clips` every clip gives as many windows as its span holds, so a source with many clips has most of them.
With `source` every stratum (`student.data.corpus.strata`) has the same number, and a clip its part of that by its length:
a detector learns more from many sources than from many clips of one. The epoch is equally long; a small source's clips
come several times, each time from another place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from store.dataset import pairs
from store.dataset.shuffle import shuffled
from student.config import DataConfig
from student.data.corpus import Corpus

SOFT_WINDOW = 5
GAP = SOFT_WINDOW // 2 + 1  # masked rows between pairs that are compared in one call
OWN, SWAP, SHIFT = range(3)
SMALL_SHIFTS = 0.3  # share of the drawn shifts that are too small to count as fake


@dataclass(frozen=True)
class Draw:
    """One window: lips of clip `lips` from frame `lips_start`, sound of clip `sound` from `sound_start`, `length` frames."""

    lips: int
    sound: int
    lips_start: int
    sound_start: int
    length: int
    kind: int
    shift: int


class At(NamedTuple):
    """A point in a run: its seed, the epoch, and the position in the epoch's order."""

    seed: int
    epoch: int
    position: int


class Key(NamedTuple):
    """One batch of one rank: clip rows and their positions in the epoch's order."""

    epoch: int
    positions: tuple[int, ...]
    clips: tuple[int, ...]


def partners(corpus: Corpus, window: int) -> np.ndarray:
    """Rows of the training clips known to be real, whose sound may be swapped in (`store.dataset.pairs`)."""
    real = corpus.rows[corpus.label[corpus.rows] == 0]
    return pairs.partners(real, corpus.length[real] // window)


def epoch_order(corpus: Corpus, config: DataConfig, seed: int, epoch: int) -> np.ndarray:
    """Clip rows i8 [windows] in the order of one epoch, as many as `window` goes into the clips' spans."""
    rng = np.random.default_rng([seed, epoch])
    counts = drawn(corpus, config, seed, epoch)
    order: np.ndarray = corpus.rows[shuffled(corpus.shard[corpus.rows], counts, config.buffer, rng)]
    return order


def expected(corpus: Corpus, config: DataConfig) -> np.ndarray:
    """Windows f8 [rows] that each training clip gives an epoch on average; their sum is the length of an epoch."""
    holds: np.ndarray = (corpus.length[corpus.rows] // config.window).astype(np.float64)
    if config.balance == "clips" or not len(holds):
        return holds
    _, stratum = np.unique(corpus.stratum[corpus.rows], return_inverse=True)
    whole = np.bincount(stratum, holds)
    shares: np.ndarray = holds / whole[stratum] * (holds.sum() / len(whole))
    return shares


def drawn(corpus: Corpus, config: DataConfig, seed: int, epoch: int) -> np.ndarray:
    """Windows i8 [rows] of each training clip in an epoch: `expected`, rounded up or down by chance to whole windows.

    Clips are laid end to end, each as long as its expected windows, in an order drawn by stratum and within it, and one
    window is taken at every whole step from a drawn start. So each stratum and each clip is off by less than one window.
    """
    mean = expected(corpus, config)
    if config.balance == "clips" or not len(mean):
        return mean.astype(np.int64)
    rng = np.random.default_rng([seed, epoch, 3])  # a stream of its own: the order of an epoch uses the first
    _, stratum = np.unique(corpus.stratum[corpus.rows], return_inverse=True)
    order = np.lexsort((rng.random(len(mean)), rng.permutation(stratum.max() + 1)[stratum]))
    taken = np.floor(np.cumsum(mean[order]) + rng.random())  # up to the end of each clip
    taken[-1] = round(mean.sum())  # whatever the sum was rounded to
    counts = np.empty(len(mean), np.int64)
    counts[order] = np.diff(np.minimum(taken, taken[-1]), prepend=0).astype(np.int64)
    return counts


def draw(corpus: Corpus, real: np.ndarray, config: DataConfig, at: At, row: int) -> Draw:
    """The window of clip `row` at a point in the run: a function of its arguments only.

    Partner, shift and length are drawn for every window in the same way; only those that become mismatched use the first two.
    """
    rng = np.random.default_rng([*at, 1])
    whole = config.window
    most = min(config.max_shift, whole // 3)
    small = min(config.min_fake_shift - 1, most)
    if most >= config.min_fake_shift and rng.random() < 1 - SMALL_SHIFTS:
        size = int(rng.integers(config.min_fake_shift, most + 1))
    else:
        size = int(rng.integers(1, small + 1)) if small else 0
    shift = size if rng.random() < 0.5 else -size
    length = whole - size
    partner = pairs.partner(real, row, rng)
    start = int(corpus.start[row] + rng.integers(corpus.length[row] - whole + 1)) + max(0, shift)
    aligned, other = rng.random() < 0.5, rng.random()
    chance, which = rng.random(), rng.random()
    mismatch = corpus.label[row] == 0 and chance < config.pair_share
    if mismatch and partner >= 0 and which < config.swap_share:
        first, room = int(corpus.start[partner]), int(corpus.length[partner]) - length
        sound_start = pairs.start_in_partner(start, first, room, aligned, other)  # half of the swaps are aligned
        return Draw(row, partner, start, sound_start, length, SWAP, 0)
    if mismatch and size and config.swap_share < 1:
        return Draw(row, row, start, start - shift, length, SHIFT, shift)
    return Draw(row, row, start, start, length, OWN, 0)


def expected_shares(corpus: Corpus, config: DataConfig) -> tuple[float, float]:
    """About how many windows of an epoch count as real and as fake for detection; weights of clips included."""
    labels, weight = corpus.label[corpus.rows], corpus.weight[corpus.rows].astype(np.float64)
    counts = expected(corpus, config) * weight
    real, fake = counts[labels == 0].sum(), counts[labels == 1].sum()
    mismatched = real * config.pair_share
    small = SMALL_SHIFTS * (1 - config.swap_share) if (labels == 0).sum() > 1 else SMALL_SHIFTS
    return float(real - mismatched), float(fake + mismatched * (1 - small))


def class_weights(real: float, fake: float) -> tuple[float, float]:
    """Weights that give real and fake windows equal total weight in the detection term, 1 on average."""
    if real <= 0 or fake <= 0:
        return 1.0, 1.0
    return (real + fake) / (2 * real), (real + fake) / (2 * fake)
