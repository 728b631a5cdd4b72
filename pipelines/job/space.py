"""The resources that a run will need: bytes on the store's disk and CPU time of the cluster, from the frames in the
headers.

The constants were measured with the default teachers on GRID (360 x 288, one speaker). Mouths and audio compress less
with noise in picture and sound, so a run with less than MARGIN to spare gets a warning, and only a clear shortage is
refused.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from concord.text import byte_size
from pipelines.errors import UsageError
from pipelines.workers import cluster
from pipelines.workers.address import resolve
from pipelines.workers.threads import cores
from store import layout
from store.place import Place, is_url

BYTES_A_FRAME = (
    6_000  # of all arrays except the two embeddings, compressed: mouths 4,680, sound 840, lips and blendshapes 210
)
BYTES_A_VALUE = 1.9  # of an embedding: f2, which hardly compresses
OPTIONAL_BYTES = {"face": 6_500}  # per frame of layout.OPTIONAL_ARRAYS, compressed
STAGED_BYTES = 10_800  # per frame of a finished batch, uncompressed, without its embeddings
STAGED_ROWS = 4 * layout.SHARD  # frames staged at the same time: shards that are being filled, packed or entered
MARGIN = 1.2  # factor on the need; a run with less free space gets a warning
SECONDS_A_FRAME = 0.008  # on one core: face stage 0.0058, teachers 0.0004, the rest staging, packing and Ray
START_S = 30.0  # to start workers and load weights


def stays(frames: int, dims: int, arrays: Sequence[str] = ()) -> int:
    """Bytes that `frames` need in a store; `dims` columns of both embeddings together, `arrays` of
    layout.OPTIONAL_ARRAYS."""
    return int(frames * (BYTES_A_FRAME + BYTES_A_VALUE * dims + sum(OPTIONAL_BYTES[name] for name in arrays)))


def needed(frames: int, dims: int, arrays: Sequence[str] = ()) -> int:
    """Bytes that a run needs for `frames` new frames: the final data, and batches that wait for their shard."""
    staged = STAGED_BYTES + 2 * dims + sum(math.prod(layout.OPTIONAL_ARRAYS[name][1]) for name in arrays)
    return int(stays(frames, dims, arrays) + min(frames, STAGED_ROWS) * staged)


def free(root: str | os.PathLike[str] | Place) -> int | None:
    """Bytes free for this user at the store's place; None for a bucket, which has no limit."""
    if is_url(root):
        return None
    at = Path(root).absolute()  # type: ignore[arg-type]
    while not at.exists():
        at = at.parent
    return shutil.disk_usage(at).free


def check(root: str | os.PathLike[str] | Place, frames: int, dims: int, arrays: Sequence[str] = ()) -> str:
    """Empty if the disk has enough space, else a warning. Raises UsageError if the frames cannot fit."""
    has, need = free(root), needed(frames, dims, arrays)
    if has is None or has >= MARGIN * need:
        return ""
    said = f"{root}: {byte_size(has)} are free on its disk and {frames} frames need about {byte_size(need)}"
    if has < need:
        raise UsageError(f"{said}; free some space, choose another disk for --store, or add fewer clips (--limit)")
    return f"{said}, which may turn out to be more: watch the disk"


def dims(arrays: Mapping[str, tuple[str, tuple[int, ...]]]) -> int:
    """Columns of both embeddings together, from the store's frame arrays (`Writer.frame_arrays`)."""
    return sum(arrays[name][1][0] for name in layout.EMBEDDINGS)


def cpus(address: str | None) -> int:
    """CPUs of the cluster at `address` (or RAY_ADDRESS), which is joined to count them; without an address, of this
    machine."""
    if resolve(address) == "local":
        return cores()
    cluster.connect(address)
    return int(cluster.resources().get("CPU", 1))


def minutes(frames: int, cpus: int) -> float:
    """Minutes that `frames` take on `cpus`, including the start, without the fit and words."""
    return (START_S + frames * SECONDS_A_FRAME / max(cpus, 1)) / 60
