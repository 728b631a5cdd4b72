"""Detectors on degraded clips: AUC of held-out made pairs, clean and degraded (see `degradations`).

    python -m benchmarks robustness --store grid.zarr --splits splits.csv --run plain=runs/plain-0 --run plain=runs/plain-1 \\
        --run augmented=runs/augmented-0 --run augmented=runs/augmented-1

The made swaps and shifts of a split, each against its twin (`student.scoring.score`), are the same for every run and
degradation. Lips and sound of a clip are degraded once, real and mismatched alike. Runs of one NAME are averaged: mean,
smallest and largest. Training's own scores are not used: the weights in a run's folder are scored again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch

import store
from benchmarks.quality.degradations import Degradation, degradations
from store import output as outputs
from store.dataset.spans import spans
from student.checkpoint import load_model
from student.data.splits import split
from student.scoring import score
from student.scoring.metrics import auc

FIGURES = outputs.marked("figures of the benchmark robustness", b'{\n "runs": [', b'\n "auc": {')
METHODS = (*score.MADE, "both")


def remember_pictures(model: torch.nn.Module) -> None:
    """Let a student with a picture encoder of its own (`lite`) encode a batch of pictures once: half of the degradations leave
    them as they are, and they are nearly all of the work."""
    if not isinstance(encoder := getattr(model, "visual", None), torch.nn.Module):
        return
    kept: dict[bytes, torch.Tensor] = {}
    encode = encoder.forward

    def once(mouth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        key = hashlib.sha256(mouth.numpy().tobytes() + mask.numpy().tobytes()).digest()
        if key not in kept:
            kept[key] = encode(mouth, mask)
        return kept[key]

    encoder.forward = once  # type: ignore[method-assign]


class Degraded:
    """A store whose clips are degraded whole, each once, by a generator of its own."""

    def __init__(self, reader: store.Reader, degradation: Degradation, others: np.ndarray) -> None:
        self.reader, self.degradation, self.others = reader, degradation, others
        self.kept: dict[tuple[int, str], np.ndarray] = {}

    def frames(self, i: int, start: int, stop: int, names: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: self._whole(i, name)[start:stop] for name in names}

    def _whole(self, i: int, name: str) -> np.ndarray:
        if (i, name) not in self.kept:
            x = self.reader.frames(i, 0, int(self.reader.clips["length"][i]), [name])[name]
            rng, by = np.random.default_rng([0, i]), self.degradation
            if name == "mouth" and by.picture:
                x = by.picture(x, rng)
            if name == "audio" and by.sound:
                x = by.sound(x.reshape(-1), rng, self.others).reshape(x.shape)
            self.kept[i, name] = x
        return self.kept[i, name]


def talk(reader: store.Reader, rows: np.ndarray, clips: int = 60) -> np.ndarray:
    """Sound i2 [n] of up to that many clips of `rows`, one after another."""
    length = reader.clips["length"]
    parts = [reader.frames(int(i), 0, int(length[i]), ["audio"])["audio"].reshape(-1) for i in rows[:clips]]
    return np.concatenate(parts)


@click.command(
    epilog="Example: python -m benchmarks robustness --store grid.zarr --splits splits.csv --run plain=runs/plain-0"
)
@click.option("--store", "path", required=True, help="Store with real clips; it is only read.")
@click.option("--splits", type=click.Path(path_type=Path), help="CSV of id, split instead of the store's column.")
@click.option("--split", "part", default="test", show_default=True)
@click.option("--run", "runs", required=True, multiple=True, help="NAME=FOLDER of a training run; may be repeated.")
@click.option("--only", multiple=True, help="A degradation by name; may be repeated. Default: all.")
@click.option("--output", type=click.Path(path_type=Path), help="Every figure as JSON.")
@click.option("--threads", default=1, show_default=True)
def main(
    path: str, splits: Path | None, part: str, runs: tuple[str, ...], only: tuple[str, ...], output: Path | None, threads: int
) -> None:  # fmt: skip
    """Print the table of AUCs."""
    if output:
        outputs.check([outputs.Output(output, FIGURES)])
    torch.set_num_threads(threads)
    reader, every = store.open(path), degradations()
    if unknown := set(only) - set(every):
        raise click.UsageError(f"no degradation {sorted(unknown)[0]}; there are {', '.join(every)}")
    chosen = split(reader, splits, need_val=False)
    rows = chosen.rows[part]
    others = talk(reader, np.setdiff1d(np.flatnonzero(reader.clips["done"] == 1), rows))
    models = []
    for run in runs:
        name, equals, folder = run.partition("=")
        if not equals:
            raise click.UsageError(f"--run takes NAME=FOLDER, not {run}")
        model, header = load_model(Path(folder), torch.device("cpu"))
        remember_pictures(model)
        models.append((name, model, header))
    names = list(dict.fromkeys(name for name, *_ in models))
    trim = models[0][2].trim
    items = [t for t in score.trials(reader, rows, spans(reader, rows, trim), 0, swaps=1, shifts=1) if t.made]
    labels, methods = np.array([t.label for t in items]), np.array([t.method for t in items])
    click.echo(f"{len(items)} pairs and twins of {len(rows)} clips, split {part}; AUC of swaps and shifts together")
    click.echo("| degradation | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|")
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for label in only or every:
        clips = Degraded(reader, every[label], others)
        found[label] = {name: {method: [] for method in METHODS} for name in names}
        for name, model, header in models:
            logits = score.logits(model, clips, items, header.window, torch.device("cpu"))
            for method in METHODS:
                use = (methods == method) | (method == "both")
                found[label][name][method].append(auc(logits[use], labels[use]))
        cells = [_cell(found[label][name]["both"]) for name in names]
        click.echo(f"| {label} | " + " | ".join(cells) + " |")
        if output:
            outputs.write(output, json.dumps({"runs": runs, "auc": found}, indent=1).encode())
    worse = [by for label, by in found.items() if label != "clean"]
    if len(worse) > 1:
        cells = [_cell(np.mean([by[name]["both"] for by in worse], 0)) for name in names]
        click.echo("| mean of the degraded | " + " | ".join(cells) + " |")


def _cell(values: Sequence[float] | np.ndarray) -> str:
    return f"{np.mean(values):.3f}" + (f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else "")
