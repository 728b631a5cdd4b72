"""An experiment's result: tables for people, the same figures as JSON, and what they rest on.

JSON keys: format, version, protocol, question, command, stores (identity), versions, settings, figures, limits, seconds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import store
from concord import __version__
from concord.text import markdown as md
from store import output as outputs
from student.config import to_json
from student.experiment.asked import Asked
from student.experiment.judging import TrialSet
from student.run.identity import store_identity, versions
from student.scoring.paired import Interval, difference, mean_auc

FORMAT, VERSION = "concord-av experiment", 1
MARK = "<!-- by concord-av, student.experiment -->"
JSON = outputs.marked("figures of student.experiment", b'{\n  "format": "concord-av experiment"', makes_folder=True)
MARKDOWN = outputs.marked("tables of student.experiment", b"# ", MARK.encode(), makes_folder=True)
TEACHERS = "teachers"


@dataclass(frozen=True)
class Table:
    """A title, the names of columns, and cells as text."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True)
class Result:
    """What an experiment found: its question, tables, figures as plain values, and what they do not show."""

    question: str
    tables: list[Table]
    figures: Mapping[str, Any]
    limits: list[str]
    notes: tuple[str, ...] = ()


def files(asked: Asked) -> tuple[Path, Path]:
    """Where the tables and the figures go."""
    return asked.output / f"{asked.protocol}.md", asked.output / f"{asked.protocol}.json"


def check(asked: Asked) -> None:
    """Raises Refused before any work if the outputs would replace other files or lie in a store."""
    page, figures = files(asked)
    outputs.check([outputs.Output(page, MARKDOWN), outputs.Output(figures, JSON)], asked.stores)


def write(asked: Asked, result: Result, seconds: float) -> None:
    """Write both files. Raises OSError, which names the file."""
    page, figures = files(asked)
    asked.output.mkdir(parents=True, exist_ok=True)
    outputs.write(page, (markdown(asked, result) + MARK + "\n").encode(errors="backslashreplace"))
    about = {
        "format": FORMAT,
        "version": VERSION,
        "protocol": asked.protocol,
        "question": result.question,
        "command": asked.command,
        "stores": [_store(path) for path in asked.stores],
        "versions": {"concord-av": __version__, **versions()},
        "settings": {**dataclasses.asdict(asked.sizes), "model": asked.model, "quick": asked.quick},
        "figures": result.figures,
        "limits": result.limits,
        "notes": list(result.notes),
        "seconds": round(seconds, 1),
    }
    outputs.write(figures, to_json(about))


def _store(path: str) -> dict[str, Any]:
    reader = store.open(path)
    note = reader.attrs.get("similarity") or {}
    return {**store_identity(reader), "fitted_on": note.get("fitted_on"), "fit_from": note.get("fit_from")}


def markdown(asked: Asked, result: Result) -> str:
    """The tables, the command and the limits."""
    said = [f"# {asked.protocol}: {md(result.question)}", ""]
    if asked.quick:
        said += ["Made with --quick, to see that it works: the figures mean nothing.", ""]
    said += [f"    {asked.command}", ""]
    for table in result.tables:
        said += [f"**{md(table.title)}**", "", _row(table.columns), _row(("---",) * len(table.columns))]
        said += [*(_row(tuple(map(md, row))) for row in table.rows), ""]
    said += [*(f"{md(note)}\n" for note in result.notes), "Not shown by this:", ""]
    said += [f"- {md(limit)}" for limit in result.limits]
    return "\n".join([*said, ""]) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


# -- arms against each other ----------------------------------------------------------------------------------------------

INTERVALS = (
    "AUC, mean over seeds, with its 95 % interval over people (clips, where fewer than ten people are known), then each seed. "
    "A difference is paired: every draw has the same people in both arms. Intervals leave out the choice of seeds."
)


def compared(
    title: str, sets: Sequence[TrialSet], scores: Mapping[str, Sequence[np.ndarray]], pairs: Sequence[tuple[str, str]]
) -> tuple[Table, dict[str, Any]]:
    """Table and figures of arms on test sets. `scores` by arm: for each set, [seeds, n]; `pairs` of arms are subtracted."""
    columns = ("judged on", "real, fake", *scores, *(f"{a} minus {b}" for a, b in pairs))
    rows, figures = [], {}
    for k, one in enumerate(sets):
        for task, use in one.tasks.items():
            labels, groups = one.labels[use], one.groups[use]
            found = {arm: values[k][:, use] for arm, values in scores.items() if np.isfinite(values[k][:, use]).all()}
            auc = {arm: mean_auc(values, labels, groups) for arm, values in found.items()}
            apart = {
                f"{a} - {b}": difference(found[a], found[b], labels, groups) for a, b in pairs if {a, b} <= found.keys()
            }
            cells = [told(auc[arm]) if arm in auc else "-" for arm in scores]
            cells += [told(apart[f"{a} - {b}"], "+.3f") if f"{a} - {b}" in apart else "-" for a, b in pairs]
            counts = int((labels == 0).sum()), int((labels == 1).sum())
            rows.append((f"{one.name}: {task}", f"{counts[0]}, {counts[1]}", *cells))
            figures[f"{one.name}: {task}"] = {
                "real": counts[0],
                "fake": counts[1],
                "groups": len(set(groups.tolist())),
                "auc": {arm: value.to_json() for arm, value in auc.items()},
                "difference": {name: value.to_json() for name, value in apart.items()},
            }
    return Table(title, columns, rows), figures


def told(value: Interval, form: str = ".3f") -> str:
    """A figure, its interval, and the figures of the seeds if there are several."""
    if math.isnan(value.value):
        return "-"
    seeds = " by seed " + ", ".join(f"{x:{form}}" for x in value.by_seed) if len(value.by_seed) > 1 else ""
    return f"{value.value:{form}} ({value.low:{form}} to {value.high:{form}}){';' if seeds else ''}{seeds}"
