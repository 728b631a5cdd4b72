"""Figures of a trained detector on a split: `python -m student.evaluate --store STORE --checkpoint RUN --split test`.

Per method and category of forgery and overall: AUC with its interval, AP with its prevalence, EER, balanced accuracy
and real recall at the threshold that was fitted on validation. On the same trials it also scores the teachers' own clip
similarity, their similarity at the best offset and its margin, student and teachers together, and, if the store was
audited, the strongest trivial baseline (one number such as the length of a silence). Real clips also give negatives
made on the fly: another clip's sound (`made swap`), their own shifted (`made shift`). `--trim` given twice shows
trimmed and untrimmed clips side by side, `--matched` a matched test set beside the whole one. Every table comes with
its coverage.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from concord.command import Command, log_to_stderr, say, told
from concord.errors import ConcordError
from concord.text import plain
from store import output as outputs
from store.dataset.spans import TRIMS
from store.similarity import grounds
from student.config import SPLITS, to_json
from student.scoring import tables

if TYPE_CHECKING:
    from accelerate import Accelerator

    from store import Reader
    from student.data.splits import Split
    from student.header import Header
    from student.scoring.baseline import Baselines
    from student.scoring.report import Report, TrialScores, Variant
    from student.scoring.scorers import Scored
    from student.scoring.taught import Taught

REPORT = outputs.marked(
    "a report of student.evaluate", b'{\n  "store": "', b'\n  "checkpoint": ', b'\n  "trained_on": '
)
TABLES = outputs.marked("tables of student.evaluate", b"# ", tables.MARK.encode())
log = logging.getLogger("student")


@dataclass(frozen=True)
class Asked:
    """What to score, and with which pairs made of real clips. `trims` empty = as the detector was trained; `matched`, a
    file like `splits_file`, is shown beside the whole split."""

    store: str
    checkpoint: Path
    split: str = "test"
    swaps: int = 1
    shifts: int = 1
    seed: int = 0
    splits_file: Path | None = None
    batch_size: int = 16
    trims: tuple[str, ...] = ()
    matched: Path | None = None


def evaluate(store_path: str, checkpoint_path: Path, split_name: str = "test", **more: Any) -> dict[str, Any]:
    """The report as plain values for JSON, scored by this process alone; `more` are further fields of `Asked`."""
    return report(Asked(store_path, checkpoint_path, split_name, **more)).to_json()


def report(asked: Asked, accelerator: Accelerator | None = None) -> Report:
    """Score a detector on a split. All processes of `accelerator` share the trials and get the same report.

    The report's variants: for each trim a table over all clips of the split and, if given, one over the matched clips.

    Raises StoreError, CheckpointError, SplitError if the split has nothing to score, and ScoreError if a score of the
    detector is not finite.
    """
    import torch

    import store
    from student.checkpoint import load_model
    from student.data.splits import split
    from student.scoring.baseline import Baselines
    from student.scoring.report import Report
    from student.scoring.scorers import Made, Scorer
    from student.scoring.taught import Taught

    reader = store.open(asked.store)
    model, header = load_model(asked.checkpoint, accelerator.device if accelerator else torch.device("cpu"))
    chosen = split(reader, asked.splits_file, header.seed, need_val=asked.split != "test")
    subset = split(reader, asked.matched, need_val=False) if asked.matched else None
    baselines = Baselines.of_store(reader)
    taught = Taught.of(reader, header, chosen.rows[asked.split], _own_rows(reader, header))
    scorer = Scorer(reader, model, header, asked.batch_size, accelerator)
    variants: list[Variant] = []
    trials: list[TrialScores] = []
    for trim in dict.fromkeys(asked.trims or (header.trim,)):
        scored = scorer.split(chosen, asked.split, trim, Made(asked.swaps, asked.shifts, asked.seed))
        trials = trials or scored.trials(chosen.weight)
        for name, of in (("all", chosen), ("matched", subset)):
            if of is not None:
                variants.append(_variant(asked, name, trim, scored, of, _Beside(reader, baselines, taught)))
    return Report(
        store=asked.store,
        checkpoint=str(asked.checkpoint),
        split=asked.split,
        seed=asked.seed,
        audited=baselines is not None,
        threshold=header.threshold,
        temperature=header.temperature,
        fitted_on=header.fitted_on or "not recorded",
        trained_on=header.store,
        variants=variants,
        trials=trials,
    )


def _own_rows(reader: Reader, header: Header) -> dict[str, np.ndarray]:
    """Rows of the clips that a detector was trained and tuned on, by split, if it does not list them but this is its store
    with the splits of its run; else {}."""
    from student.data.splits import split
    from student.run.identity import store_identity

    known = not header.clips and header.store.get("clips") == store_identity(reader)["clips"]
    return split(reader, None, header.seed).rows if known and not header.config.get("splits") else {}


@dataclass(frozen=True)
class _Beside:
    """The store, its trivial baselines, and what the scorers have learned from."""

    reader: Reader
    baselines: Baselines | None
    taught: Taught


def _variant(asked: Asked, name: str, trim: str, scored: Scored, of: Split, beside: _Beside) -> Variant:
    """Coverage and table of the trials whose clips are in the split `of`, with its weights."""
    from student.data.splits import SplitError
    from student.scoring.report import Variant

    weights = of.weight.astype(float).copy()
    weights[np.setdiff1d(np.arange(len(weights)), of.rows[asked.split])] = 0
    use = np.flatnonzero(weights[[t.lips for t in scored.items]] > 0)
    if not len(use):
        raise SplitError(
            f"{asked.matched} and the split {asked.split} have no clip in common; matching is done within it"
        )
    some, clips = [scored.items[k] for k in use], beside.reader.clips
    lips = np.array([t.lips for t in some])
    trials = tables.Trials(
        some,
        {who: values[use] for who, values in scored.scores.items()},
        categories=np.array([str(clips["category"][row]) for row in lips]),
        groups=np.array([str(clips["group"][row]) or str(row) for row in lips]),
        weights=weights[lips],
        sources=np.array([str(clips["source"][row]) for row in lips], object),
        people=np.array(grounds.people(clips["identities"][lips]), object),
        seen=beside.taught.by_scorer(some),
    )
    scored_clips, pairs = sum(not t.made for t in some), sum(t.made and t.label == 1 for t in some)
    coverage = replace(scored.coverage, listed=of.listed[asked.split], scored=scored_clips, pairs=pairs)
    return Variant(trim, name, coverage, tables.table(trials, beside.baselines), beside.taught.counts(some))


def show(report: Report, width: int | None = None) -> None:
    """Print the tables, `width` columns wide, None = as wide as the terminal, or 150 in a file."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=width or (None if sys.stdout.isatty() else 150))
    for variant in report.variants:
        rows = [tuple(map(plain, line)) for line in tables.lines(variant.methods)]
        columns = tables.fitting(rows, console.width)
        table = Table(title=f"split {report.split}: {tables.title(variant)}")
        for name in tables.COLUMNS[:columns]:
            names = name in tables.NAMES
            table.add_column(name, justify="left" if names else "right", no_wrap=not names, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row[:columns]))
        console.print(table)
        if left := tables.COLUMNS[columns:]:
            console.print(Text(f"Too narrow for {', '.join(left)}: see --output or --markdown.", style="dim"))
        for warning in tables.warnings(variant):
            console.print(Text(plain(warning)))
    if not report.audited:
        console.print(Text(plain(tables.unaudited(report.store)), style="dim"))


@click.command(cls=Command)
@click.option("--store", required=True, help="Folder or URL (s3://, gs://) of the store.")
@click.option("--checkpoint", required=True, type=click.Path(path_type=Path), help="--output folder of a training run.")
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True)
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
    "--swaps",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Pairs with another clip's sound, for each real clip.",
)
@click.option(
    "--shifts", type=click.IntRange(0), default=1, show_default=True, help="Shifted pairs for each real clip."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed for making pairs.")
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Windows scored together.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the report, every trial included, as JSON.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write the tables as Markdown.")
@click.option(
    "--plot",
    "plot_path",
    type=click.Path(path_type=Path),
    help="Write ROC, DET, score histograms and reliability as PNG.",
)
@click.option("--cpu", is_flag=True, help="Do not use a GPU.")
def main(
    store: str,
    checkpoint: Path,
    output: Path | None,
    markdown: Path | None,
    plot_path: Path | None,
    cpu: bool,
    **more: Any,
) -> None:
    """Score a trained detector on a split of a store.

    Example: python -m student.evaluate --store grid.zarr --checkpoint runs/grid --split test --output report.json
    """
    import accelerate
    import torch

    from student.scoring import plots

    log_to_stderr()
    accelerator = accelerate.Accelerator(cpu=cpu or not torch.cuda.is_available())
    asked = Asked(store, checkpoint, **more)
    try:
        if plot_path:
            plots.kind_of(plot_path)
        targets = ((output, REPORT), (markdown, TABLES), (plot_path, outputs.picture(plots.COMMAND)))
        outputs.check(
            [outputs.Output(path, kind) for path, kind in targets if path],
            [path for path in (checkpoint, asked.splits_file, asked.matched) if path],
        )
        found = report(asked, accelerator)
    except ConcordError as error:
        if not accelerator.is_main_process:  # the main process reports it
            sys.exit(error.exit_code)
        raise
    finally:
        accelerator.end_training()
    if accelerator.is_main_process:
        is_written = _write(
            (output, lambda path: outputs.write(path, to_json(found.to_json()))),
            (markdown, lambda path: outputs.write(path, tables.markdown(found).encode(errors="backslashreplace"))),
            (plot_path, lambda path: plots.sheet(found, path)),
        )
        show(found)
        if not is_written:
            sys.exit(1)


def _write(*forms: tuple[Path | None, Callable[[Path], None]]) -> bool:
    """Write all requested outputs, even if one fails; returns whether all could be written."""
    is_written = True
    for path, write in forms:
        try:
            if path:
                write(path)
        except OSError as error:
            say(f"Error: {told(error)}", err=True)
            is_written = False
    return is_written


if __name__ == "__main__":
    main()
