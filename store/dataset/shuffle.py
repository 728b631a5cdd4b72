"""The shuffled order of an epoch: shards first, then windows within a buffer, so that neighbouring reads stay within few
shards."""

from __future__ import annotations

import numpy as np

BUFFER = 2048  # windows that are shuffled together


def shuffled(shard: np.ndarray, counts: np.ndarray, buffer: int, rng: np.random.Generator) -> np.ndarray:
    """Positions i8 [counts.sum()] in an order drawn from `rng`: position k is there `counts[k]` times.

    shard i8 [n]: where each position's windows lie; counts i8 [n].
    """
    shards = np.unique(shard)
    place = rng.permutation(len(shards))[np.searchsorted(shards, shard)]
    by_shard = np.argsort(place, kind="stable")
    positions = np.repeat(by_shard, counts[by_shard])
    # a random phase lets windows also mix across the border of two buffers
    group = (np.arange(len(positions)) + rng.integers(buffer)) // buffer
    return positions[np.lexsort((rng.random(len(positions)), group))]
