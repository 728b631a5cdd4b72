"""A short training of `lite` whose losses are written down: `tests/data/lite_losses.json`, step by step and term by term.

The four real GRID clips that the project ships, watched by the teachers of the packaged fit, make a store of 300 frames; the
training command runs on it for some steps, without augmentation, from one seed. A change to data, losses, model or optimizer
that moves training shows here, whether it was meant to or not.

    python tests/support/reference_run.py     # writes the losses anew, after a change that is meant to move them
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from click.testing import CliRunner

import store
from store.similarity import fitfile

ROOT = Path(__file__).parents[2]
CLIPS, LOSSES = ROOT / "tests" / "data" / "grid" / "clips", ROOT / "tests" / "data" / "lite_losses.json"
TERMS = ("loss", "detection", "correlation", "contrastive")
CORPUS = "grid:grid_s1"  # whose calibration the packaged fit has
TOLERANCE = 0.02  # of each term; one machine repeats the bits, others round otherwise in decoding, teachers and kernels
OPTIONS = (
    "--epochs",
    "6",
    "--window",
    "25",
    "--batch-size",
    "3",
    "--threads",
    "1",
    "--no-augment",
    "--seed",
    "7",
    "--cpu",
)


def make_reference_store(path: Path) -> Path:
    """A store of the shipped clips: mouths, sound, flags and projections, as precompute would write them."""
    from student.predict.__main__ import predict
    from student.predict.basis import basis

    fit, teachers, _ = fitfile.default()
    files = sorted(CLIPS.glob("*.mp4"))
    seen = [evidence for _, evidence, _ in predict([str(file) for file in files], basis(None), words=False)]
    assert all(seen)
    lengths = [one.clip.num_frames for one in seen]
    writer = store.create(path, {"asr": 1, "vsr": 1}, {"teachers": teachers}, {}, shard_rows=sum(lengths))
    starts = np.cumsum([0, *lengths[:-1]])
    table: dict[str, list] = {"id": [file.stem for file in files], "path": [str(file) for file in files]}
    table |= {"corpus": [CORPUS] * len(files), "label": [0] * len(files), "group": [file.stem for file in files]}
    table |= {"split": ["train"] * 3 + ["val"], "offset": starts.tolist(), "capacity": lengths, "length": lengths}
    writer.append_clips({**table, "duration": [n / 25 for n in lengths], "done": [1] * len(files)})
    writer.grow_rows(sum(lengths))
    writer.ensure_projections(fit.dims)
    writer.write_fit(fit.to_arrays())
    for shard in range(writer.num_rows // writer.shard_rows):
        block = writer.blank_shard()
        for start, one in zip(starts, seen, strict=True):
            rows = slice(start, start + one.clip.num_frames)
            block["mouth"][rows], block["audio"][rows] = one.clip.mouth, one.clip.audio.reshape(-1, 640)
            block["flags"][rows], block["fake"][rows] = one.clip.flags, 0
            block["vsr_projection"][rows], block["asr_projection"][rows] = one.vsr_projection, one.asr_projection
        writer.write_shard(shard, block)
    writer.consolidate()
    return path


def losses(path: Path, output: Path) -> list[dict[str, float]]:
    """Train on the store at `path`; the unweighted terms and their weighted sum at each step."""
    from student.train import main
    from student.training import trainer

    every, trainer.LOG_STEPS = trainer.LOG_STEPS, 1
    try:
        result = CliRunner().invoke(main, ["--store", str(path), "--output", str(output), *OPTIONS])
    finally:
        trainer.LOG_STEPS = every
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{"step": line["step"], **{term: line[term] for term in TERMS}} for line in lines]


def write() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = losses(make_reference_store(Path(folder) / "s.zarr"), Path(folder) / "run")
    lines = ",\n".join(f"  {json.dumps(line)}" for line in found)
    LOSSES.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    write()
