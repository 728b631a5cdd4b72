"""Hostile files from a seed: checkpoints, weights, fits, detectors, stores and manifests with false claims, loops,
foreign paths or calls.

`make(kind, folder, outside, seed, template)` writes one case. Code that a case wants to have run would make the file
`outside/ran`; every path that leads out of the case leads to `outside`, where a secret lies.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.hostile.archives import fit, npz
from benchmarks.hostile.detectors import detector
from benchmarks.hostile.manifests import manifest
from benchmarks.hostile.pickles import checkpoint
from benchmarks.hostile.stores import store

KINDS: dict[str, Callable[..., Path]] = {
    "checkpoint": checkpoint, "npz": npz, "fit": fit, "detector": detector, "store": store, "manifest": manifest,
}  # fmt: skip


def make(kind: str, folder: Path, outside: Path, seed: int, template: Path) -> Path:
    """One case, the same for the same seed; `template` is a sound store of 20 chunks a shard."""
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    return KINDS[kind](folder, outside, rng, **({"template": template} if kind == "store" else {}))
