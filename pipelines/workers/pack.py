"""Finished batches: kept under `_staging/`, and written as whole shards when all batches of a shard are staged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

import store
from pipelines.corpora.manifest import Row
from pipelines.workers.plan import ShardGroup, clips_of_shard
from pipelines.workers.work import SECOND, Receipt, Work, opened, spool
from store import layout, staging
from store.layout import FPS
from store.place import Place
from teachers import ClipMedia


def stage(work: Work, root: Place) -> list[Receipt]:
    """Write a finished batch to `_staging/`, atomically; returns its receipts, the only part that goes to the
    driver."""
    arrays: list[dict[str, np.ndarray]] = []
    for i, sent in enumerate(work.clips):
        asr, vsr = work.asr[i], work.vsr[i]
        if sent is None or asr is None or vsr is None:
            arrays.append({})
            continue
        clip = opened(sent)
        arrays.append(
            {
                "mouth": clip.mouth,
                **({} if clip.face is None else {"face": clip.face}),
                "audio": clip.audio.reshape(clip.num_frames, layout.SAMPLES_PER_FRAME),
                "lips": clip.lips.astype(np.float16),
                "blendshapes": clip.blendshapes.astype(np.float16),
                "flags": clip.flags,
                "fake": frame_labels(work.rows[i], clip.num_frames),
                "asr": asr.astype(np.float16, copy=False),
                "vsr": vsr.astype(np.float16, copy=False),
                **_second(clip),
            }
        )
    staging.stage(root, work.name, arrays, [asdict(receipt) for receipt in work.receipts])
    staging.discard(root, [spool(work.name)])
    return work.receipts


def _second(clip: ClipMedia) -> dict[str, np.ndarray]:
    """The arrays of a clip's second face as a store has them; none without one."""
    arrays = {name: getattr(clip, name) for name in SECOND}
    return {
        name: array.astype(layout.SECOND_ARRAYS[name][0], copy=False)
        for name, array in arrays.items()
        if array is not None
    }


def receipts(root: Place, name: str) -> list[Receipt]:
    """Receipts of a staged batch, without its arrays. Raises StoreError if it is incomplete or missing."""
    return [_receipt(values) for values in staging.receipts(root, name)]


def receipts_if_any(root: Place, name: str) -> list[Receipt] | None:
    """Receipts of a staged batch, without its arrays; None if this version cannot read them."""
    try:
        return receipts(root, name)
    except store.StoreError:
        return None


def staged_receipts(root: Place, name: str) -> list[Receipt] | None:
    """Receipts of a completely staged batch, None if it is not; an incomplete one is removed."""
    try:
        return [_receipt(values) for values in staging.load(root, name)[1]]
    except store.StoreError:
        return None


def _receipt(values: dict[str, Any]) -> Receipt:
    """A receipt from its JSON. Raises StoreError if it has other fields."""
    try:
        return Receipt(**values)
    except TypeError as error:
        raise store.StoreError(f"a staged batch has receipts of another version of this program ({error})") from error


def frame_labels(row: Row, num_frames: int) -> np.ndarray:
    """Per-frame labels [frames] i1: 1 forged, 0 real, -1 unknown; a forged segment covers the frames whose middle is in
    it."""
    if row.label != 1:
        return np.full(num_frames, row.label, np.int8)
    segments = [*row.audio_segments, *row.video_segments]
    if not segments:
        return np.ones(num_frames, np.int8)
    middle = (np.arange(num_frames) + 0.5) / FPS
    forged = np.zeros(num_frames, np.int8)
    for start, end in segments:
        forged[(start <= middle) & (middle < end)] = 1
    return forged


def pack(root: Place, group: ShardGroup, names: list[str]) -> int:
    """Write the shards of `group` completely, from its staged batches `names` and the clips that were already finished.

    Soft labels of these shards are empty afterwards: the second pass fills them. Returns the number of clips that were added.
    """
    writer, reader = store.Writer.open(root), store.open(root)
    slots = {slot.clip: slot for slot in group.slots}
    laid: dict[int, tuple[int, Mapping[str, np.ndarray | staging.Rows]]] = {}  # clip row: first frame row, arrays
    for name in names:
        staged = staging.rows(root, name) if group.first < group.last else staging.load(root, name)
        for found, receipt in zip(*staged, strict=True):
            if found:
                laid[receipt["clip"]] = slots[receipt["clip"]].offset, found
    for shard in range(group.first, group.last + 1):
        kept = [clip for clip in clips_of_shard(reader.clips, shard) if clip not in laid]
        for name in writer.frame_arrays:
            if name not in layout.PROJECTIONS:
                rows = writer.blank_shard([name])[name]
                for clip in kept if name != "similarity" else ():
                    begin, length = int(reader.clips["offset"][clip]), int(reader.clips["length"][clip])
                    here, own = _inside(shard, begin, length)
                    rows[here] = reader.frames(clip, own.start, own.stop, [name])[name]
                for begin, arrays in laid.values():
                    if name in arrays:
                        here, own = _inside(shard, begin, len(arrays["flags"]))
                        rows[here] = arrays[name][own]
                writer.write_shard(shard, {name: rows})
    return len(laid)


def _inside(shard: int, begin: int, length: int) -> tuple[slice, slice]:
    """The rows of a shard that belong to a clip which begins at frame row `begin`, and the corresponding frames of the
    clip."""
    start, end = shard * layout.SHARD, begin + length
    first = min(max(begin, start), start + layout.SHARD)
    last = max(min(end, start + layout.SHARD), first)
    return slice(first - start, last - start), slice(first - begin, last - begin)
