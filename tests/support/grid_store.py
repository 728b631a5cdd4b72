"""A store of the four real clips that the project ships, each twice, with the default teachers and a cca: made without Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import store
import teachers
from pipelines.workers.watch import Watcher
from store import layout, similarity

ASR, VSR = "whisper:tiny.en@3", "lips"
SPLITS = ("train", "train", "train", "train", "val", "val", "test", "test")


def make_grid_store(path: Path, clips: Path) -> Path:
    """Clips of `clips` as rows 0 to 7, with real paths, so that their videos can be read again."""
    watcher, asr, vsr = Watcher(), teachers.load(ASR), teachers.load(VSR)
    files = sorted(clips.glob("*.mp4"))
    seen = [watcher.watch(str(file)).clip for file in files]
    arrays = [
        {
            "mouth": clip.mouth, "audio": clip.audio.reshape(clip.num_frames, -1), "flags": clip.flags,
            "fake": np.zeros(clip.num_frames, np.int8), "lips": clip.lips, "blendshapes": clip.blendshapes,
            "asr": asr.embed([clip])[0], "vsr": vsr.embed([clip])[0],
        }
        for clip in seen
    ]  # fmt: skip
    total = None
    for a in arrays:
        now = similarity.Moments.of(similarity.with_context(a["vsr"], 4), a["asr"])
        total = now if total is None else total + now
    fit = similarity.fit_cca(total, 4, dims=4).calibrated("grid", dict.fromkeys(similarity.WINDOWS, (6.0, -2.0)))
    records = {"asr": asr.provenance(), "vsr": vsr.provenance()}
    writer = store.create(path, {"asr": asr.dim, "vsr": vsr.dim}, {"teachers": records})
    length = [len(arrays[k % 4]["flags"]) for k in range(8)]
    offset = np.r_[0, np.cumsum(length)[:-1]].tolist()
    table = {
        "id": [f"{k}" for k in range(8)], "path": [str(files[k % 4]) for k in range(8)], "corpus": ["grid"] * 8,
        "split": list(SPLITS), "group": ["s1"] * 8, "label": [0] * 8, "offset": offset, "capacity": length,
        "length": length, "done": [1] * 8,
    }  # fmt: skip
    writer.append_clips(table)
    writer.grow_rows(sum(length))
    writer.ensure_projections(fit.dims)
    writer.write_fit(fit.to_arrays())
    block = writer.blank_shard()
    for k in range(8):
        a = dict(arrays[k % 4])
        a["vsr_projection"], a["asr_projection"] = (
            similarity.project_vsr(a["vsr"], fit),
            similarity.project_asr(a["asr"], fit),
        )
        mask = layout.labelled(a["flags"], a["flags"])
        a["similarity"] = similarity.compare(a["vsr_projection"], a["asr_projection"], fit, 5, mask, "grid")
        for name, values in a.items():
            block[name][offset[k] : offset[k] + length[k]] = values
    writer.write_shard(0, block)
    writer.consolidate()
    return path
