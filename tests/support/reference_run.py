"""A short training of `lite` whose losses are written down: `tests/data/lite_losses.json`, step by step and term by term.

The four real GRID clips that the project ships make a store of 300 frames; the training command runs on it for some steps,
without augmentation, from one seed. A change to data, losses, model or optimizer that moves training shows here, whether it
was meant to or not. Neither face stage nor teachers take part, since their rounding differs between processors by more than
training may: mouths are a fixed part of each picture, and the teachers' rows are drawn, alike for lips and sound.

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
from store import layout, similarity

ROOT = Path(__file__).parents[2]
CLIPS, LOSSES = ROOT / "tests" / "data" / "grid" / "clips", ROOT / "tests" / "data" / "lite_losses.json"
TERMS = ("loss", "detection", "crossed", "correlation", "contrastive")
CORPUS, DIMS = "grid:s1", 32
TOLERANCE = 0.02  # of each term; one machine repeats the bits, others round otherwise
MOUTH = np.s_[166:262, 112:208]  # of each picture
FLAGS = layout.FACE_DETECTED | layout.AUDIO_PRESENT | layout.VOICE_ACTIVE | layout.IN_USE
OPTIONS = (
    "--epochs",
    "6",
    "--window",
    "25",
    "--batch-size",
    "3",
    "--lr",
    "3e-4",  # less rounding becomes visible than with the default
    "--threads",
    "1",
    "--no-augment",
    "--seed",
    "7",
    "--cpu",
)


def make_reference_store(path: Path) -> Path:
    """A store of the shipped clips: mouths, sound, flags and projections, as precompute would write them."""
    from pipelines.media.picture import Video
    from pipelines.media.sound import decode_sound

    fit = similarity.unlearned("cosine", DIMS).calibrated(CORPUS, {"5": (4.0, 0.0)})
    teachers = {side: {"name": "drawn", "sha256": "", "dim": 1} for side in ("asr", "vsr")}
    files = sorted(CLIPS.glob("*.mp4"))
    draw = np.random.default_rng(0)
    blocks: list[dict[str, np.ndarray]] = []
    for file in files:
        video = Video(file)
        mouth = np.stack([picture[MOUTH].mean(axis=-1).astype(np.uint8) for picture in video])
        said = draw.standard_normal((len(mouth) + 4, DIMS))
        said = sum(said[k : k + len(mouth)] for k in range(5)) / 5**0.5  # as slowly as speech changes
        blocks.append(
            {
                "mouth": mouth,
                "audio": decode_sound(file, video.start_s, len(mouth)).samples.reshape(-1, 640),
                "flags": np.full(len(mouth), FLAGS, np.uint8),
                **{
                    f"{side}_projection": (said + draw.standard_normal(said.shape)).astype(np.float16)
                    for side in ("vsr", "asr")
                },
            }
        )
    lengths = [len(one["flags"]) for one in blocks]
    writer = store.create(path, {"asr": 1, "vsr": 1}, {"teachers": teachers}, {}, shard_rows=sum(lengths))
    starts = np.cumsum([0, *lengths[:-1]])
    table: dict[str, list] = {"id": [file.stem for file in files], "path": [str(file) for file in files]}
    table |= {"corpus": [CORPUS] * len(files), "label": [0] * len(files), "group": [file.stem for file in files]}
    table |= {"split": ["train"] * 3 + ["val"], "offset": starts.tolist(), "capacity": lengths, "length": lengths}
    writer.append_clips({**table, "duration": [n / 25 for n in lengths], "done": [1] * len(files)})
    writer.grow_rows(sum(lengths))
    writer.ensure_projections(DIMS)
    writer.write_fit(fit.to_arrays())
    for shard in range(writer.num_rows // writer.shard_rows):
        block = writer.blank_shard()
        for start, one in zip(starts, blocks, strict=True):
            block["fake"][start : start + len(one["flags"])] = 0
            for name, rows in one.items():
                block[name][start : start + len(rows)] = rows
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
