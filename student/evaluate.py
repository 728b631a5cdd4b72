"""Figures of a trained detector on a split: `python -m student.evaluate --store STORE --checkpoint RUN --split test`.

Per method and category of forgery and overall: AUC with its interval, AP with its prevalence, EER, balanced accuracy and real
recall at the threshold that was fitted on validation. Beside the student stand, on the same trials, the teachers' own clip
similarity, that at the best offset and its margin, student and teachers together, and, where the store was audited, the
strongest trivial baseline (one number such as a silence's length). Real clips also give negatives made on the fly: another
clip's sound (`made swap`), their own shifted (`made shift`). `--trim` given twice shows clips cut and uncut side by side,
`--matched` a matched test set beside the whole one. Every table comes with its coverage.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from concord.command import Command, fail, log_to_stderr, say, told
from concord.text import plain
from store import output as outputs
from student.config import TRIMS, to_json
from student.scoring import tables

REPORT = outputs.marked(
    "a report of student.evaluate", b'{\n  "store": "', b'\n  "checkpoint": ', b'\n  "trained_on": '
)
TABLES = outputs.marked("tables of student.evaluate", b"# ", tables.MARK.encode())
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
    trims: tuple[str, ...] = (),
    matched: Path | None = None,
) -> dict[str, Any]:
    """The report as a JSON-able dict, equal in all processes; trials are shared among them and gathered by id.

    `variants` holds a table for each of `trims` (none = what the detector was trained with) over all clips of the split, and
    over those of `matched` (a file like `splits_file`) where given; the first one's table and trials stand at the top too.
    Raises StoreError, CheckpointError, SplitError, ValueError where the split has nothing to score, and ScoreError where the
    detector answers with no number.
    """
    import torch

    import store
    from student.checkpoint import load_model
    from student.data.splits import split
    from student.scoring.baseline import Baselines
    from student.scoring.tables import table

    device = accelerator.device if accelerator else torch.device("cpu")
    reader = store.open(store_path)
    model, about = load_model(checkpoint_path, device)
    chosen = split(reader, splits_file, int(about["config"].get("seed", 0)), need_val=split_name != "test")
    subset = split(reader, matched, need_val=False) if matched else None
    baselines = Baselines.of_store(reader)
    trims = trims or (about["config"].get("data", {}).get("trim", "none"),)  # detectors of before were trained without
    variants: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for trim in dict.fromkeys(trims):
        scored = _score(reader, model, about, chosen, split_name, trim, (swaps, shifts, seed), batch_size, accelerator)
        items, scores, _, coverage = scored
        shown = shown or _trials(scored, chosen.weight)
        for name, of in (("all", chosen), ("matched", subset)):
            if of is None:
                continue
            weights = of.weight.astype(float).copy()
            weights[np.setdiff1d(np.arange(len(weights)), of.rows[split_name])] = 0
            use = np.flatnonzero(weights[[t.lips for t in items]] > 0)
            if not len(use):
                raise ValueError(
                    f"{matched} and the split {split_name} have no clip in common; matching is done within it"
                )
            some = [items[k] for k in use]
            lips = np.array([t.lips for t in some])
            groups = np.array([str(reader.clips["group"][row]) or str(row) for row in lips])
            category = np.array([str(reader.clips["category"][row]) for row in lips])
            parts = {who: values[use] for who, values in scores.items()}
            counted = {
                "scored": sum(not t.made for t in some),
                "pairs": sum(t.made and t.label == 1 for t in some),
            }
            variants.append(
                {
                    "trim": trim,
                    "clips": name,
                    "coverage": {**coverage, "listed": of.listed[split_name], **counted},
                    "methods": table(some, parts, category, groups, weights[lips], baselines),
                }
            )
    return {
        "store": store_path,
        "checkpoint": str(checkpoint_path),
        "split": split_name,
        "seed": seed,
        "audited": baselines is not None,
        "threshold": about["threshold"],
        "temperature": about["temperature"],
        "fitted_on": about.get("fitted_on", "not recorded"),
        "trained_on": about.get("store", {}),
        **{name: variants[0][name] for name in ("trim", "coverage", "methods")},
        "variants": variants,
        "trials": shown,
    }


def _score(
    reader: Any, model: Any, about: Any, chosen: Any, split_name: str, trim: str, made: tuple[int, int, int],
    batch_size: int, accelerator: Any,
) -> tuple[list, dict[str, np.ndarray], np.ndarray, dict[str, int]]:  # fmt: skip
    """Trials, their scores by scorer (0 = threshold), best offsets, and coverage: the same in all processes."""
    import torch
    from accelerate.utils import gather_object

    from student.checkpoint import picture
    from student.data.spans import spans
    from student.scoring import score

    device = accelerator.device if accelerator else torch.device("cpu")
    rank, world = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    rows, listed = chosen.rows[split_name], chosen.listed[split_name]
    swaps, shifts, seed = made
    inside = spans(reader, rows, trim)
    items = score.trials(reader, rows, inside, seed, swaps, shifts)
    if not items:
        raise ValueError(
            f"split {split_name} of {reader.path} has no labelled clip that is done and long enough ({listed} listed); "
            "choose another --split or --trim, or give --splits"
        )
    mine = items[rank::world]
    values = (
        score.logits(model, reader, mine, int(about["window"]), device, batch_size, picture=picture(about)),
        score.teacher_logits(reader, mine),
        *score.offset_scores(reader, mine),
    )
    ours = [(t.id, *(float(x) for x in row)) for t, *row in zip(mine, *values, strict=True)]
    found = {name: row for name, *row in (gather_object(ours) if world > 1 else ours)}
    if len(found) != len(items):
        raise ValueError(f"gathered {len(found)} of {len(items)} trials")
    student, teacher, best, margin, offset = np.array([found[t.id] for t in items]).T
    score.check_finite(items, student)
    moved = student - float(about["threshold"])
    both = moved / float(about["temperature"]) + teacher  # two log odds of evidence that is taken for independent
    scores = {"student": moved, "teacher": teacher, "teacher_offset": best, "teacher_margin": margin, "both": both}
    coverage = {"done": len(rows), "too_short": int((inside.length[rows] < score.MIN_FRAMES).sum())}
    return items, scores, offset, {"listed": listed, **coverage}


def _trials(scored: tuple, weight: np.ndarray) -> list[dict[str, Any]]:
    """What each trial of the first table scored; `student` is the logit less its threshold, `offset` in frames."""
    items, scores, offset, _ = scored
    return [
        {
            "id": t.id,
            "label": t.label,
            "method": t.method,
            "made": t.made,
            "frames": t.length,
            "weight": float(weight[t.lips]),
            "offset": o,
            **dict(zip(scores, values, strict=True)),
        }
        for t, o, *values in zip(items, offset.tolist(), *(v.tolist() for v in scores.values()), strict=True)
    ]


def show(report: dict[str, Any]) -> None:
    """The tables on standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from student.scoring import tables

    console = Console(width=None if sys.stdout.isatty() else 150)
    for variant in report["variants"]:
        table = Table(title=f"split {report['split']}: {tables.title(variant)}")
        for name in tables.COLUMNS:
            table.add_column(name, justify="left" if name in ("method", "by") else "right", no_wrap=True)
        for line in tables.lines(variant["methods"]):
            table.add_row(*(Text(plain(cell)) for cell in line), end_section=False)
        console.print(table)
    if not report["audited"]:
        console.print(Text(plain(tables.UNAUDITED.format(report["store"])), style="dim"))


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--store", "store_path", required=True, help="Folder or URL (s3://, gs://) of the store.")
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="--output folder of a training run.")
@click.option("--split", "split_name", type=click.Choice(("train", "val", "test")), default="test", show_default=True)
@click.option("--splits", "splits_file", type=click.Path(path_type=Path), help="CSV or Parquet of id, split, weight.")
@click.option(
    "--matched",
    type=click.Path(path_type=Path),
    help="Another such file: a matched part of the split, shown beside the whole.",
)
@click.option(
    "--trim",
    "trims",
    multiple=True,
    type=click.Choice(TRIMS),
    help="See student/train.py; may be repeated. Default: as the detector was trained.",
)
@click.option(
    "--swaps", type=click.IntRange(0), default=1, show_default=True, help="Pairs with another sound a real clip."
)
@click.option("--shifts", type=click.IntRange(0), default=1, show_default=True, help="Shifted pairs a real clip.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the pairs that are made.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Windows scored together.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the report, every trial included, as JSON.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the tables as Markdown.")
@click.option(
    "--plot",
    "plot_path",
    type=click.Path(path_type=Path),
    help="Write ROC, DET, score histograms and reliability as PNG.",
)
@click.option("--cpu", is_flag=True, help="Leave a GPU alone.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def main(
    store_path: str, checkpoint: Path, split_name: str, splits_file: Path | None, matched: Path | None,
    trims: tuple[str, ...], swaps: int, shifts: int, seed: int, batch_size: int, output: Path | None,
    markdown: Path | None, plot_path: Path | None, cpu: bool, debug: bool,
) -> None:  # fmt: skip
    """Score a trained detector on a split of a store.

    Example: python -m student.evaluate --store grid.zarr --checkpoint runs/grid --split test --output report.json
    """
    import accelerate
    import torch

    from store import StoreError
    from student.checkpoint import CheckpointError
    from student.data.splits import SplitError
    from student.scoring import plots, score, tables

    log_to_stderr()
    accelerator = accelerate.Accelerator(cpu=cpu or not torch.cuda.is_available())
    try:
        if plot_path:
            plots.kind_of(plot_path)
        asked = ((output, REPORT), (markdown, TABLES), (plot_path, outputs.picture(plots.COMMAND)))
        outputs.check(
            [outputs.Output(path, kind) for path, kind in asked if path],
            [path for path in (checkpoint, splits_file, matched) if path],
        )
        report = evaluate(
            store_path,
            checkpoint,
            split_name,
            swaps,
            shifts,
            seed,
            splits_file,
            batch_size,
            accelerator,
            trims,
            matched,
        )
    except (StoreError, CheckpointError, SplitError, ValueError, OSError, score.ScoreError) as error:
        code = 1 if isinstance(error, score.ScoreError) else 2
        if accelerator.is_main_process:
            fail(f"Error: {error}", code)
        sys.exit(code)
    finally:
        accelerator.end_training()
    if accelerator.is_main_process:
        forms: tuple[tuple[Path | None, Callable[[Path], None]], ...] = (
            (output, lambda path: outputs.write(path, to_json(report))),
            (markdown, lambda path: outputs.write(path, tables.markdown(report).encode(errors="backslashreplace"))),
            (plot_path, lambda path: plots.sheet(report, path)),
        )
        lost = False
        for path, write in forms:
            try:
                if path:
                    write(path)
            except OSError as error:  # the others are written all the same
                say(f"Error: {told(error)}", err=True)
                lost = True
        show(report)
        if lost:
            sys.exit(1)


if __name__ == "__main__":
    main()
