"""One training step from the store against the same step with decoding, the face stage and both teachers inside it.

    python -m benchmarks step --store grid.zarr
    python -m benchmarks step --store grid.zarr --large --batches 2

The paper's way computes the contents of the store at every step and for every window: the clip is decoded, its face
tracked, its voice found, both teachers embed it, their rows are projected and compared. Here both ways take the same
windows in the same process in turns, A B B A, and give the same loss (the last lines say how far apart the first ones
are). The clips' files must lie where the store found them. `--large` puts Whisper base and an AV-HuBERT of LARGE size
in the place of the store's teachers, with random weights: their cost is that of the real ones, their labels are
meaningless.

Forged clips are not used, and windows keep their own sound: with swaps the paper's way would process a partner's clip
too. One process, no reader processes; times by the clock, medians and ratios, and ratios by processor time.
"""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import store
import teachers
from pipelines.labels import projection
from pipelines.labels.projection import half
from pipelines.media.picture import Video
from pipelines.workers.watch import Watcher
from store import layout, similarity
from store.dataset.spans import spans, window_for
from store.place import place
from student.config import DataConfig, LossConfig
from student.data.corpus import Corpus
from student.data.dataset import Windows
from student.data.order import Key, epoch_order
from student.models import build
from student.training.losses import Targets, total
from teachers import Teacher

FACE, ASR, VSR, PROJECT = "decoding, face, voice", "sound teacher", "lips teacher", "projections"
READ, STEP = "windows, soft labels", "student's step"
LIVE, STORED = "computed in the step", "from the store"
LARGE = {  # shapes of the published models (their configurations)
    "whisper": {
        "n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 512, "n_audio_head": 8, "n_audio_layer": 6,
        "n_vocab": 51865, "n_text_ctx": 448, "n_text_state": 512, "n_text_head": 8, "n_text_layer": 6,
    },
    "avhubert": {
        "_name": "av_hubert", "encoder_layers": 24, "encoder_embed_dim": 1024, "encoder_ffn_embed_dim": 4096,
        "encoder_attention_heads": 16, "audio_feat_dim": 104, "layer_norm_first": True,
    },
}  # fmt: skip


class Clock:
    """Seconds by part of the work, by the clock and of the processor."""

    def __init__(self) -> None:
        self.parts: dict[str, np.ndarray] = {}

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        begun = np.array([time.perf_counter(), time.process_time()])
        yield
        spent = np.array([time.perf_counter(), time.process_time()]) - begun
        self.parts[part] = self.parts.get(part, np.zeros(2)) + spent


class Live:
    """Replaces a store's reader, and computes the requested arrays from the clips' files."""

    def __init__(self, reader: store.Reader, asr: Teacher, vsr: Teacher, fit: similarity.Fit | None) -> None:
        self.reader, self.asr, self.vsr, self.fit = reader, asr, vsr, fit
        self.maps = projection.maps(fit) if fit else None
        self.watcher = Watcher()
        self.clips: dict[int, dict[str, np.ndarray]] = {}
        self.clock = Clock()

    def compute(self, rows: Sequence[int]) -> None:
        """All arrays of those clips, as precompute's stages make them."""
        paths = self.reader.clips["path"]
        found = []
        with self.clock.of(FACE):
            for row in rows:
                found.append(self.watcher.watch(place(str(paths[row])), clip_id=str(row)).clip)
        with self.clock.of(ASR):
            asr = self.asr.embed(found)
        with self.clock.of(VSR):
            vsr = self.vsr.embed(found)
        if self.fit is None:
            self.fit = similarity.fit_cca(similarity.Moments.of(np.concatenate(vsr), np.concatenate(asr)), 0)
            self.maps = projection.maps(self.fit)
        to_vsr, to_asr = self.maps
        threads = torch.get_num_threads()
        with self.clock.of(PROJECT):
            torch.set_num_threads(1)  # as precompute has it; threads of torch and of numpy would wait for each other
            self.clips = {
                row: {
                    "mouth": clip.mouth,
                    "audio": clip.audio.reshape(-1, layout.SAMPLES_PER_FRAME),
                    "flags": clip.flags,
                    "fake": np.zeros(clip.num_frames, np.int8),
                    "vsr_projection": half(to_vsr(half(v), clip.flags)),
                    "asr_projection": half(to_asr(half(a), clip.flags)),
                }
                for row, clip, v, a in zip(rows, found, vsr, asr, strict=True)
            }
            torch.set_num_threads(threads)

    def frames(self, i: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        """As `store.Reader.frames`, of clips computed before."""
        return {name: self.clips[i][name][start:stop] for name in names}


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor]) -> float:
    """One update, as the trainer makes it; the loss before it."""
    output = model(batch["picture"], batch["audio"], batch["mask"])
    loss, _ = total(output, Targets(*(batch[name] for name in Targets._fields)), LossConfig())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def windows(path: str, reader: store.Reader, source: Any, config: DataConfig, corpus: Corpus) -> Windows:
    """The trainer's windows, read from `source`."""
    made = Windows(path, corpus, config, 0, True, (1.0, 1.0))
    made._reader = source
    return made


def large_teachers(folder: Path) -> tuple[Teacher, Teacher]:
    """Whisper base and an AV-HuBERT LARGE with random weights, by way of checkpoints as they are published."""
    from whisper.model import ModelDimensions, Whisper

    from teachers.avhubert import loading

    torch.manual_seed(0)
    dims = LARGE["whisper"]
    state = Whisper(ModelDimensions(**dims)).state_dict()
    torch.save({"dims": dims, "model_state_dict": state}, folder / "base.pt")
    loading.register()
    from fairseq.models import build_model
    from fairseq.tasks import setup_task
    from omegaconf import OmegaConf

    task_config = {"_name": "av_hubert_pretraining", "normalize": True, "stack_order_audio": 4}
    task = setup_task(OmegaConf.create(task_config), from_checkpoint=True)
    model = build_model(OmegaConf.create(LARGE["avhubert"]), task, from_checkpoint=True)
    content = {"cfg": {"model": LARGE["avhubert"], "task": task_config}, "model": model.state_dict()}
    torch.save(content, folder / "large.pt")
    return teachers.load(f"whisper:{folder / 'base.pt'}"), teachers.load(f"avhubert:{folder / 'large.pt'}")


@click.command(epilog="Example: python -m benchmarks step --store grid.zarr")
@click.option("--store", "path", required=True, help="Store of short clips whose files are still there.")
@click.option("--model", "names", multiple=True, default=["lite", "talknet"], show_default=True)
@click.option("--batches", default=6, show_default=True, help="Of 8 windows; a first one is not counted.")
@click.option("--threads", default=2, show_default=True, help="Of torch, both ways.")
@click.option("--large", is_flag=True, help="Whisper base and AV-HuBERT LARGE, random weights, as teachers.")
def main(path: str, names: tuple[str, ...], batches: int, threads: int, large: bool) -> None:
    """Print a table for each model."""
    reader = store.open(path)
    with tempfile.TemporaryDirectory() as folder:
        if large:
            asr, vsr = large_teachers(Path(folder))
        else:
            asr, vsr = (teachers.load(reader.attrs["teachers"][side]["name"]) for side in ("asr", "vsr"))
    live = Live(reader, asr, vsr, None if large else reader.fit)
    done = np.flatnonzero((np.asarray(reader.clips["done"]) == 1) & (np.asarray(reader.clips["label"]) < 1))
    config = replace(DataConfig(), pair_share=0.0)
    inside = spans(reader, done, config.trim)
    config = replace(config, window=window_for(inside.length[done], np.full(len(done), ""), config.window))
    corpus = Corpus.of(reader, done, np.ones(len(reader), np.float32), inside, config.window)
    order = epoch_order(corpus, config, 0, 0)
    size = config.batch_size
    if len(order) < size * (batches + 1):
        raise click.ClickException(f"the store has {len(order)} windows; {size * (batches + 1)} are needed")
    torch.set_num_threads(threads)
    for name in names:
        found = _measured(name, path, live, config, corpus, order, batches)
        click.echo(_table(name, found, live.fit is reader.fit))
    click.echo(
        f"{batches} batches of {size} windows of {config.window} frames, {threads} threads of {os.cpu_count()} cores; teachers "
        f"{asr.name.split('/')[-1]}, {vsr.name.split('/')[-1]}{' (random weights)' if large else ''}; "
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}"
    )


@dataclass
class Measured:
    """What the steps of one student cost each way, batch by batch; the first batch is left out of the times."""

    size: int  # windows in a batch
    spent: dict[str, list[Clock]]
    losses: dict[str, list[float]]
    decoding: list[float]  # seconds of the clock, of decoding alone

    def median(self, way: str, part: str) -> float:
        """Milliseconds a clip, by the clock."""
        return 1000 / self.size * statistics.median(clock.parts[part][0] for clock in self.spent[way])

    def whole(self, way: str, which: int = 0) -> list[float]:
        """Seconds of each batch, by the clock (0) or of the processor (1)."""
        return [sum(part[which] for part in clock.parts.values()) for clock in self.spent[way]]


def _measured(
    name: str, path: str, live: Live, config: DataConfig, corpus: Corpus, order: np.ndarray, batches: int
) -> Measured:
    """Steps of the student called `name`, both ways in turns on the same batches."""
    torch.manual_seed(0)
    students = {way: build(name, dropout=0.0) for way in (STORED, LIVE)}
    students[LIVE].load_state_dict(students[STORED].state_dict())
    optimizers = {way: torch.optim.AdamW(model.parameters(), lr=1e-3) for way, model in students.items()}
    reader, size = live.reader, config.batch_size
    sources = {STORED: windows(path, reader, reader, config, corpus), LIVE: windows(path, reader, live, config, corpus)}
    found = Measured(size, {STORED: [], LIVE: []}, {STORED: [], LIVE: []}, [])
    for k in range(batches + 1):
        rows = tuple(int(r) for r in order[k * size : (k + 1) * size])
        key = Key(0, tuple(range(k * size, (k + 1) * size)), rows)
        for way in (STORED, LIVE) if k % 2 else (LIVE, STORED):
            live.clock = clock = Clock()
            if way == LIVE:
                live.compute(rows)
            with clock.of(READ):
                batch = sources[way][key]
            with clock.of(STEP):
                found.losses[way].append(step(students[way], optimizers[way], batch))
            if k:
                found.spent[way].append(clock)
        begun = time.perf_counter()
        for row in rows:
            for _ in Video(place(str(reader.clips["path"][row]))):
                pass
        if k:
            found.decoding.append(time.perf_counter() - begun)
    return found


def _table(name: str, found: Measured, same_labels: bool) -> str:
    """The table of one student; `same_labels`: both ways have the same soft labels, so that their losses can be compared."""
    lines = [f"{name}, ms a clip | {STORED} | {LIVE}", "---|---|---"]
    for part in (FACE, ASR, VSR, PROJECT, READ, STEP):
        stored = f"{found.median(STORED, part):.1f}" if part in found.spent[STORED][0].parts else ""
        lines.append(f"{part} | {stored} | {found.median(LIVE, part):.1f}")
        if part == FACE:
            lines.append(f"(of which decoding) | | {1000 / found.size * statistics.median(found.decoding):.1f}")
    shown = [f"{1000 / found.size * statistics.median(found.whole(way)):.1f}" for way in (STORED, LIVE)]
    lines.append(f"whole | {' | '.join(shown)}")
    ratios = sorted(b / a for a, b in zip(found.whole(STORED), found.whole(LIVE), strict=True))
    by_processor = statistics.median(b / a for a, b in zip(found.whole(STORED, 1), found.whole(LIVE, 1), strict=True))
    same = ""
    if same_labels:  # of the first batch: later losses drift apart, as rounding does in training
        same = f"; losses of the first batch apart {abs(found.losses[STORED][0] - found.losses[LIVE][0]):.1e}"
    lines.append(
        f"the store's step is {statistics.median(ratios):.1f} times as fast ({ratios[0]:.1f} to {ratios[-1]:.1f}; "
        f"{by_processor:.1f} by processor time){same}"
    )
    read, work = found.median(STORED, READ), found.median(STORED, STEP)
    lines.append(
        f"one reader gives {1000 / read:.0f} windows/s, the step takes {1000 / work:.0f}: {work / read:.1f} times"
    )
    return "\n".join(lines) + "\n"
