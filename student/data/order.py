"""Which windows an epoch has, in which order, and with whose sound: functions of (seed, epoch, position) only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from student.config import DataConfig
from student.data.corpus import Corpus

SOFT_WINDOW = 5
GAP = SOFT_WINDOW // 2 + 1  # masked rows between pairs that are compared in one call
NEIGHBOURS = (
    512  # windows: a partner is stored nearby, so its chunks are needed soon anyway, and is often the same speaker
)
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
    """Rows of the training clips known to be real, whose sound may be swapped in: one for each of a clip's windows, so
    that swapped sound has the same distribution of positions as own sound."""
    real = corpus.rows[corpus.label[corpus.rows] == 0]
    return np.sort(np.repeat(real, corpus.length[real] // window))


def epoch_order(corpus: Corpus, config: DataConfig, seed: int, epoch: int) -> np.ndarray:
    """Clip rows i8 [windows] in the order of one epoch, one for each `window` frames of a clip's span."""
    rng = np.random.default_rng([seed, epoch])
    shard = corpus.shard[corpus.rows]
    shards = np.unique(shard)
    place = rng.permutation(len(shards))[np.searchsorted(shards, shard)]
    counts = corpus.length[corpus.rows] // config.window
    by_shard = np.argsort(place, kind="stable")
    windows = np.repeat(corpus.rows[by_shard], counts[by_shard])
    # a random phase lets windows also mix across the border of two buffers
    group = (np.arange(len(windows)) + rng.integers(config.buffer)) // config.buffer
    return windows[np.lexsort((rng.random(len(windows)), group))]


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
    partner, length = -1, whole - size
    for _ in range(4 if len(real) > 1 else 0):
        near = int(np.searchsorted(real, row) + rng.integers(-NEIGHBOURS, NEIGHBOURS + 1))
        partner = int(real[near % len(real)])
        if partner != row:
            break
    partner = -1 if partner == row else partner
    start = int(corpus.start[row] + rng.integers(corpus.length[row] - whole + 1)) + max(0, shift)
    aligned, other = rng.random() < 0.5, rng.random()
    chance, which = rng.random(), rng.random()
    mismatch = corpus.label[row] == 0 and chance < config.pair_share
    if mismatch and partner >= 0 and which < config.swap_share:
        first, room = int(corpus.start[partner]), int(corpus.length[partner]) - length
        # half of the swaps keep the position in the clip: scripted corpora share a rhythm, which must not reveal swaps
        sound_start = start if aligned and first <= start <= first + room else first + int(other * (room + 1))
        return Draw(row, partner, start, sound_start, length, SWAP, 0)
    if mismatch and size and config.swap_share < 1:
        return Draw(row, row, start, start - shift, length, SHIFT, shift)
    return Draw(row, row, start, start, length, OWN, 0)


def expected_shares(corpus: Corpus, config: DataConfig) -> tuple[float, float]:
    """About how many windows of an epoch count as real and as fake for detection; weights of clips included."""
    labels, weight = corpus.label[corpus.rows], corpus.weight[corpus.rows].astype(np.float64)
    counts = corpus.length[corpus.rows] // config.window * weight
    real, fake = counts[labels == 0].sum(), counts[labels == 1].sum()
    mismatched = real * config.pair_share
    small = SMALL_SHIFTS * (1 - config.swap_share) if (labels == 0).sum() > 1 else SMALL_SHIFTS
    return float(real - mismatched), float(fake + mismatched * (1 - small))


def class_weights(real: float, fake: float) -> tuple[float, float]:
    """Weights that give real and fake windows equal total weight in the detection term, 1 on average."""
    if real <= 0 or fake <= 0:
        return 1.0, 1.0
    return (real + fake) / (2 * real), (real + fake) / (2 * fake)
