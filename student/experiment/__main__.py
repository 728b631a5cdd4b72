"""The questions that this project was begun with, each as one command: `python -m student.experiment --protocol NAME`.

soft-labels      the student with and without the teachers' soft labels
content-or-sync  labels of content against labels of synchronisation alone
accents          what one corpus teaches, judged on others of other languages, accents and cameras
cost             what an answer takes with teachers and without
corrupted        bad sound and pictures: where the teachers err, is a student misled that learned from their labels?
leave-one-method-out, leave-one-source-out, real-only
                 forgeries by a method, of a source, or of any kind that training has not seen, arm by arm

Each writes PROTOCOL.md and PROTOCOL.json into --output: tables with intervals, seeds, the command, the identity of the
stores, and what the figures do not show. Trained runs are kept there and not trained again.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import importlib
import logging
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from concord.command import Command, log_to_stderr, put
from store import output as outputs
from student.config import TrainConfig
from student.experiment.asked import FULL, QUICK, Asked, ExperimentError

UNSEEN = ("leave-one-method-out", "leave-one-source-out", "real-only")
PROTOCOLS = ("soft-labels", "content-or-sync", "accents", "cost", "corrupted", *UNSEEN)
KINDS = ("cca", "contrast", "fused")


@click.command(
    cls=Command,
    epilog="Example: python -m student.experiment --protocol soft-labels --store news.zarr --output runs/soft",
)
@click.option("--protocol", type=click.Choice(PROTOCOLS), required=True, help="The question.")
@click.option(
    "--store",
    "stores",
    multiple=True,
    metavar="STORE",
    help="Store to train and judge on; may be repeated: all clips of further ones are judged (accents learns from each).",
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder for tables and trained runs.")
@click.option("--corpus", multiple=True, metavar="KIND:ROOT", help="For cost: videos to answer, as for precompute.py.")
@click.option("--manifest", type=click.Path(path_type=Path), help="For cost: the same as a list of videos.")
@click.option("--seeds", type=click.IntRange(1), help=f"Seeds of each arm.  [default: {FULL.seeds}]")
@click.option("--steps", type=click.IntRange(1), help=f"Steps of training, to whole epochs.  [default: {FULL.steps}]")
@click.option("--clips", type=click.IntRange(2), help=f"Clips to train on, at most.  [default: {FULL.clips}]")
@click.option(
    "--judged", type=click.IntRange(2), help=f"Clips of a corpus to judge, at most.  [default: {FULL.judged}]"
)
@click.option(
    "--folds",
    type=click.IntRange(1),
    help=f"Methods or sources that are held out in turn, the largest first.  [default: {FULL.folds}]",
)
@click.option(
    "--hold-out",
    "held",
    multiple=True,
    metavar="NAME",
    help="Hold out this method or source in place of the largest; may be repeated.",
)
@click.option(
    "--arm", "arms", multiple=True, metavar="NAME", help="For those that hold something out: some of the arms."
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="NAME",
    help="For the same: options of student.train that all arms share, a file or a recipe (concord configs).",
)
@click.option("--model", default=TrainConfig.model, show_default=True, help="Student: lite, lite-causal or talknet.")
@click.option("--threads", default=TrainConfig.threads, show_default=True, help="As for student.train.")
@click.option(
    "--similarity", "kind", type=click.Choice(KINDS), default="fused", show_default=True, help="For accents: the fit."
)
@click.option("--students/--no-students", default=True, show_default=True, help="For accents: train students, too.")
@click.option("--corruption", "corruptions", multiple=True, metavar="NAME", help="For corrupted: some of the kinds.")
@click.option("--quick", is_flag=True, help="A few clips and steps, to see that it works; the figures mean nothing.")
def main(
    stores: tuple[str, ...],
    corpus: tuple[str, ...],
    manifest: Path | None,
    seeds: int | None,
    steps: int | None,
    clips: int | None,
    judged: int | None,
    folds: int | None,
    held: tuple[str, ...],
    **more: Any,
) -> None:
    """Answer one of the project's questions with a table of its own."""
    log_to_stderr()
    logging.getLogger("student").setLevel(logging.INFO)
    given: dict[str, Any] = {
        "seeds": seeds,
        "steps": steps,
        "clips": clips,
        "judged": judged,
        "folds": folds,
        "held": held,
    }
    sizes = replace(QUICK if more["quick"] else FULL, **{name: value for name, value in given.items() if value})
    asked = Asked(stores=stores, sizes=sizes, command=_command(), **more)
    _check(asked, corpus, manifest)
    asked = replace(asked, videos=_videos(corpus, manifest))
    put(answered(asked))


def answered(asked: Asked) -> str:
    """Run an experiment and write its files; the tables as Markdown."""
    from student.experiment import tables

    outputs.check_folder(asked.output, "the experiment")
    tables.check(asked)
    experiment = importlib.import_module(f"student.experiment.{asked.protocol.replace('-', '_')}")
    begun = time.monotonic()
    result = experiment.run(asked)
    tables.write(asked, result, time.monotonic() - begun)
    return tables.markdown(asked, result)


def _check(asked: Asked, corpus: tuple[str, ...], manifest: Path | None) -> None:
    """Raises UsageError or ExperimentError for options that the protocol does not have or lacks."""
    if asked.protocol != "cost" and not asked.stores:
        raise click.UsageError(f"--protocol {asked.protocol} needs --store")
    if asked.protocol != "cost" and (corpus or manifest):
        raise click.UsageError(f"--corpus and --manifest are for --protocol cost; make a store for {asked.protocol}")
    if asked.protocol != "corrupted" and asked.corruptions:
        raise click.UsageError("--corruption is for --protocol corrupted")
    if asked.protocol == "corrupted":
        from student.experiment.corrupting import kinds

        kinds(asked.corruptions)
    given = {"--arm": asked.arms, "--config": asked.config, "--hold-out": asked.sizes.held}
    if asked.protocol not in UNSEEN and any(given.values()):
        raise click.UsageError(f"{next(name for name in given if given[name])} is for {', '.join(UNSEEN)}")
    if asked.arms:
        from student.experiment.unseen import chosen

        chosen(asked.arms)
    if asked.config:
        from student.experiment.arms import shared

        shared(asked)
    if asked.protocol in ("corrupted", *UNSEEN) and len(asked.stores) > 1:
        raise click.UsageError(f"--protocol {asked.protocol} takes one --store")
    from student.models import MODELS

    if asked.model not in MODELS:
        raise ExperimentError(f"unknown model {asked.model}; there is {', '.join(sorted(MODELS))}")


def _videos(corpus: tuple[str, ...], manifest: Path | None) -> tuple[str, ...]:
    """The videos of --corpus and --manifest. Raises ManifestError."""
    from pipelines.corpora import manifest as lists

    specs = [*corpus, *([f"csv:{manifest}"] if manifest else [])]
    return tuple(row.path for spec in specs for row in lists.load(spec))


def _command() -> str:
    """This command, as a person may type it again."""
    return shlex.join(["python", "-m", "student.experiment", *sys.argv[1:]])


if __name__ == "__main__":
    main()
