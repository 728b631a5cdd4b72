"""The effect of the distillation loss: the same student with and without it, several seeds each, trained on real clips
only.

    python -m benchmarks distillation --store grid.zarr --output runs/distillation [--clips 100]

Trains from the store's train split with pairs made on the fly, and judges held-out pairs of the test split: another
clip's sound, the own sound shifted. "without" has --w-correlation 0 --w-contrastive 0: only detection, on the same
windows; "confident" weights soft labels by the teachers' confidence. The teachers' own similarity is shown beside the
students. A fit that has seen the test clips favours the teachers: mark the splits before the store's fit. Finished runs
are not trained again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import numpy as np

import store
from store import output as outputs
from student.evaluate import evaluate

TERMS = {
    "with": [],
    "confident": ["--confidence", "1"],
    "without": ["--w-correlation", "0", "--w-contrastive", "0"],
}
SPLITS = outputs.marked("splits of the benchmark distillation", b"id,split\n", makes_folder=True)
FIGURES = outputs.marked(
    "figures of the benchmark distillation", b'{\n "auc": {', b'\n "intervals": {', makes_folder=True
)
METHODS = ("made swap", "made shift")


@click.command(epilog="Example: python -m benchmarks distillation --store grid.zarr --output runs/distillation")
@click.option("--store", "path", required=True, help="Store with real clips, marked train, val and test.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder of the runs.")
@click.option("--seeds", default=3, show_default=True)
@click.option("--epochs", default=8, show_default=True)
@click.option("--clips", type=int, help="Train on that many clips, drawn by seed 0. Default: all.")
@click.option("--threads", default=1, show_default=True)
@click.option("--trim", default="leading", show_default=True)
@click.option("--way", "ways", type=click.Choice(list(TERMS)), multiple=True, default=list(TERMS), show_default=True)
def main(
    path: str, output: Path, seeds: int, epochs: int, clips: int | None, threads: int, trim: str, ways: tuple[str, ...]
) -> None:
    """Print a table of AUCs; everything goes to OUTPUT/distillation.json too."""
    files = ((output / "splits.csv", SPLITS), (output / "distillation.json", FIGURES))
    outputs.check([outputs.Output(path, kind) for path, kind in files])
    output.mkdir(parents=True, exist_ok=True)
    splits = _splits(path, clips, output / "splits.csv")
    found: dict[str, dict[str, list[float]]] = {}
    spans: dict[str, list[str]] = {}
    for seed in range(seeds):
        for name, terms in ((way, TERMS[way]) for way in ways):
            run = output / f"{name}-{seed}"
            if not (run / "results.json").exists() or not json.loads((run / "results.json").read_text())["finished"]:
                command = [sys.executable, "-m", "student.train", "--store", path, "--output", str(run), *terms]
                command += ["--epochs", str(epochs), "--seed", str(seed), "--threads", str(threads), "--trim", trim]
                command += ["--splits", str(splits), "--resume_from_checkpoint", "latest"]
                subprocess.run(command, check=True)
            report = evaluate(path, run, "test", splits_file=splits, swaps=2, shifts=2)
            for method in METHODS:
                for who in ("student", *(["teacher"] if "teacher" in report["methods"][method] else [])):
                    f = report["methods"][method][who]
                    label = f"student, {name}" if who == "student" else "teachers"
                    found.setdefault(label, {}).setdefault(method, []).append(f["auc"])
                    spans.setdefault(f"{label} {method}", []).append(f"{f['auc_low']:.3f}-{f['auc_high']:.3f}")
            (output / "distillation.json").write_text(json.dumps({"auc": found, "intervals": spans}, indent=1))
            click.echo(f"seed {seed}, {name}: " + _told(found[f"student, {name}"], -1), err=True)
    click.echo("| | " + " | ".join(f"{m}: mean | by seed (95 % of clips)" for m in METHODS) + " |")
    click.echo("|---" * (1 + 2 * len(METHODS)) + "|")
    for label, values in found.items():
        cells = []
        for method in METHODS:
            runs = values[method] if label != "teachers" else values[method][:1]
            each = [f"{v:.3f} ({s})" for v, s in zip(runs, spans[f"{label} {method}"], strict=False)]
            cells += [f"{np.mean(runs):.3f}", ", ".join(each)]
        click.echo(f"| {label} | " + " | ".join(cells) + " |")


def _told(values: dict[str, list[float]], k: int) -> str:
    return ", ".join(f"{method} {auc[k]:.3f}" for method, auc in values.items())


def _splits(path: str, clips: int | None, file: Path) -> Path:
    """The store's own splits, with fewer training clips where asked."""
    columns = store.open(path).clips
    names, ids = columns["split"].astype(str), columns["id"].astype(str)
    train = np.flatnonzero((names == "train") & (columns["done"] == 1))
    kept = np.sort(np.random.default_rng(0).permutation(train)[:clips])
    use = np.r_[kept, np.flatnonzero(np.isin(names, ("val", "test")))]
    file.write_text("id,split\n" + "".join(f'"{ids[k]}",{names[k]}\n' for k in use))
    return file
