"""Figures of a trained detector on a split: `python -m student.evaluate --store STORE --checkpoint RUN --split test`.

Per method of forgery and overall: AUC, AP with its prevalence, EER, balanced accuracy and real recall at the threshold that was
fitted on validation; beside it, on the same trials, the teachers' own clip similarity and, where the store was audited, the
strongest trivial baseline (one number such as a silence's length). Real clips also give negatives made on the fly: another
clip's sound (`made swap`), their own shifted (`made shift`). Every figure comes with its coverage.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from student.config import TRIMS, write_json

log = logging.getLogger("student")


def evaluate(
    store_path: str,
    checkpoint_path: Path,
    split_name: str = "test",
    swaps: int = 1,
    shifts: int = 1,
    seed: int = 0,
    splits_file: Path | None = None,
    batch_size: int = 16,
    accelerator: Any = None,
    trim: str | None = None,
) -> dict[str, Any]:
    """The report as a JSON-able dict, equal in all processes; trials are shared among them and gathered by id.

    `trim`: see `student.spans`; None is what the detector was trained with.

    Raises StoreError, CheckpointError, SplitError, and ValueError where the split has nothing to score.
    """
    import torch
    from accelerate.utils import gather_object

    import store
    from student import score
    from student.baseline import Baselines
    from student.checkpoint import load_model
    from student.spans import spans
    from student.splits import split

    device = accelerator.device if accelerator else torch.device("cpu")
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    reader = store.open(store_path)
    model, about = load_model(checkpoint_path, device)
    chosen = split(reader, splits_file, int(about["config"]["seed"]), need_val=split_name != "test")
    rows, listed = chosen.rows[split_name], chosen.listed[split_name]
    trim = trim or about["config"].get("data", {}).get("trim", "none")  # detectors of before were trained without
    inside = spans(reader, rows, trim)
    items = score.trials(reader, rows, inside, seed, swaps, shifts)
    if not items:
        raise ValueError(
            f"split {split_name} of {store_path} has no labelled clip that is done and long enough ({listed} listed); "
            "choose another --split or --trim, or give --splits"
        )
    mine = items[rank::world]
    student = score.logits(model, reader, mine, int(about["window"]), device, batch_size)
    teacher = score.teacher_logits(reader, mine)
    triples = [(t.id, float(s), float(u)) for t, s, u in zip(mine, student, teacher, strict=True)]
    found = {name: values for name, *values in (gather_object(triples) if world > 1 else triples)}
    if len(found) != len(items):
        raise ValueError(f"gathered {len(found)} of {len(items)} trials")
    student, teacher = np.array([found[t.id] for t in items]).T
    whole = [t for t in items if not t.made]
    weights = chosen.weight[[t.lips for t in items]].astype(float)
    baselines = Baselines.of_store(reader)
    return {
        "store": store_path,
        "checkpoint": str(checkpoint_path),
        "split": split_name,
        "seed": seed,
        "trim": trim,
        "audited": baselines is not None,
        "threshold": about["threshold"],
        "temperature": about["temperature"],
        "fitted_on": about["fitted_on"],
        "trained_on": about["store"],
        "coverage": {
            "listed": listed,
            "done": len(rows),
            "too_short": int((inside.length[rows] < score.MIN_FRAMES).sum()),
            "scored": len(whole),
            "pairs": sum(t.made and t.label == 1 for t in items),
        },
        "methods": _table(items, student, teacher, weights, float(about["threshold"]), baselines),
        "trials": [
            {
                "id": t.id,
                "label": t.label,
                "method": t.method,
                "made": t.made,
                "frames": t.length,
                "weight": w,
                "student": s,
                "teacher": u,
            }
            for t, w, s, u in zip(items, weights.tolist(), student.tolist(), teacher.tolist(), strict=True)
        ],
    }


def _table(
    items: list, student: np.ndarray, teacher: np.ndarray, weights: np.ndarray, threshold: float, baselines: Any
) -> dict[str, Any]:
    """Figures by method, "overall" first: the clips where they hold both classes, else the pairs made here. Pairs have no
    trivial baseline: fakes and twins are cut from the same clips."""
    from student import metrics, score

    labels = np.array([t.label for t in items])
    methods = list(dict.fromkeys(t.method for t in items if t.label == 1))
    chosen = {"overall": score.headline(items)} | {name: score.of_method(items, name) for name in methods}
    table = {}
    for name, use in chosen.items():
        row: dict[str, Any] = {"student": asdict(metrics.figures(student[use], labels[use], threshold, weights[use]))}
        if np.isfinite(teacher).all():
            row["teacher"] = asdict(metrics.figures(teacher[use], labels[use], 0.0, weights[use]))
        some = [t for t, used in zip(items, use, strict=True) if used]
        best = baselines.strongest("all" if name in ("overall", "fake") else name, some) if baselines else None
        if best and not any(t.made for t in some):
            known = np.isfinite(best[1])
            figures = metrics.figures(best[1][known], labels[use][known], np.nan, weights[use][known])
            figures = replace(figures, balanced_accuracy=np.nan, real_recall=np.nan)  # it has no threshold
            row["trivial"] = {"nuisance": best[0], **asdict(figures)}
        table[name] = row
    return table


def plot(report: dict[str, Any], path: Path) -> None:
    """ROC curve of each method that has both classes, student solid and teachers dashed; pairs made here only where the split
    has no forged clips of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from student import metrics

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    forged = any(t["label"] and not t["made"] for t in report["trials"])
    for k, (name, row) in enumerate((n, r) for n, r in report["methods"].items() if n != "overall"):
        made = any(t["method"] == name and t["made"] for t in report["trials"])
        use = [t for t in report["trials"] if t["method"] == name or not (made or t["made"] or t["label"])]
        labels = np.array([t["label"] for t in use])
        if len(np.unique(labels)) < 2 or (made and forged):
            continue
        for who, style in (("student", "-"), ("teacher", "--")):
            if who in row:
                fpr, tpr, _ = metrics.roc(np.array([t[who] for t in use]), labels, np.array([t["weight"] for t in use]))
                axes.plot(fpr, tpr, style, color=f"C{k}", label=f"{name}, {who} (AUC {row[who]['auc']:.3f})")
    axes.plot([0, 1], [0, 1], ":", color="grey")
    axes.set(xlabel="real called fake", ylabel="fake called fake", title=f"split {report['split']}", aspect="equal")
    figure.legend(loc="outside right center", fontsize="small", frameon=False)
    figure.savefig(path, dpi=120)


def show(report: dict[str, Any]) -> None:
    """The table on standard output."""
    from rich.console import Console
    from rich.table import Table

    c = report["coverage"]
    left = f" ({c['too_short']} too short)" if c["too_short"] else ""
    title = (
        f"split {report['split']}: {c['scored']} clips scored of {c['listed']} listed{left}, {c['pairs']} pairs made"
    )
    table = Table(title=f"{title}; trim {report['trim']}")
    for name in ("method", "by", "real", "fake", "AUC", "AP", "prevalence", "EER", "balanced acc.", "real recall"):
        table.add_column(name, justify="left" if name in ("method", "by") else "right")
    for method, row in report["methods"].items():
        for who, f in row.items():
            values = (f["auc"], f["ap"], f["prevalence"], f["eer"], f["balanced_accuracy"], f["real_recall"])
            shown = ["-" if v is None or v != v else f"{v:.3f}" for v in values]
            by = f"{who}: {f['nuisance']}" if who == "trivial" else who
            table.add_row(method, by, str(f["num_real"]), str(f["num_fake"]), *shown)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    if not report["audited"]:
        console.print(
            f"no trivial baselines: run python -m pipelines.audit --store {report['store']} first", style="dim"
        )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--store", "store_path", required=True, help="Folder or URL (s3://, gs://) of the store.")
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="--output folder of a training run.")
@click.option("--split", "split_name", type=click.Choice(("train", "val", "test")), default="test", show_default=True)
@click.option("--splits", "splits_file", type=click.Path(path_type=Path), help="CSV or Parquet of id, split, weight.")
@click.option(
    "--swaps", type=click.IntRange(0), default=1, show_default=True, help="Pairs with another sound a real clip."
)
@click.option("--shifts", type=click.IntRange(0), default=1, show_default=True, help="Shifted pairs a real clip.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the pairs that are made.")
@click.option("--trim", type=click.Choice(TRIMS), help="See student/train.py; default: as the detector was trained.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Windows scored together.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the report, every trial included, as JSON.")
@click.option("--plot", "plot_path", type=click.Path(path_type=Path), help="Write ROC curves as PNG.")
@click.option("--cpu", is_flag=True, help="Leave a GPU alone.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def main(
    store_path: str, checkpoint: Path, split_name: str, splits_file: Path | None, swaps: int, shifts: int, seed: int,
    trim: str | None, batch_size: int, output: Path | None, plot_path: Path | None, cpu: bool, debug: bool,
) -> None:  # fmt: skip
    """Score a trained detector on a split of a store.

    Example: python -m student.evaluate --store grid.zarr --checkpoint runs/grid --split test --output report.json
    """
    import accelerate
    import torch

    from store import StoreError
    from student.checkpoint import CheckpointError
    from student.splits import SplitError

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    accelerator = accelerate.Accelerator(cpu=cpu or not torch.cuda.is_available())
    try:
        report = evaluate(
            store_path, checkpoint, split_name, swaps, shifts, seed, splits_file, batch_size, accelerator, trim
        )
    except (StoreError, CheckpointError, SplitError, ValueError) as error:
        if debug:
            raise
        if accelerator.is_main_process:
            click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    finally:
        accelerator.end_training()
    if accelerator.is_main_process:
        show(report)
        if output:
            write_json(output, report)
        if plot_path:
            plot(report, plot_path)


if __name__ == "__main__":
    main()
