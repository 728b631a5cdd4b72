"""Tables of an evaluation: the same clips scored by the student, the teachers, both together, and one trivial number.

A table has a row for everything ("overall"), for each category of forgery (RVFA, FVRA, FVFA) and for each method, and in it one
line a scorer. AUC comes with its 95 % interval by group. Terminal and Markdown say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from concord.text import markdown as md
from student.scoring import metrics, score
from student.scoring.baseline import Baselines

COLUMNS = ("method", "by", "real", "fake", "AUC", "95 %", "AP", "prevalence", "EER", "balanced acc.", "real recall")
SCORERS = {  # name in the JSON: (as shown, whether its scores have a threshold at 0)
    "student": ("student", True),
    "teacher": ("teachers", True),
    "teacher_offset": ("teachers, best offset", False),
    "teacher_margin": ("teachers, its margin", False),
    "both": ("student + teachers", True),
}


def table(
    items: list[score.Trial],
    scores: Mapping[str, np.ndarray],
    categories: np.ndarray,
    groups: np.ndarray,
    weights: np.ndarray,
    baselines: Baselines | None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """{"overall", "category NAME", method: {scorer: figures}} of trials [n]; `scores` f8 [n] are higher for fakes, 0 at their
    threshold where they have one, and NaN where not known: such clips are missing from that scorer's counts.

    "overall" is of the clips where they hold both classes, else of the pairs made here. Pairs have no trivial baseline: fakes
    and twins are cut from the same clips.
    """
    labels = np.array([t.label for t in items])
    made = np.array([t.made for t in items], bool)
    chosen = {"overall": score.headline(items)}
    for name in sorted({str(c) for c, y in zip(categories[~made], labels[~made], strict=True) if c and y == 1}):
        chosen[f"category {name}"] = ~made & ((labels == 0) | (categories == name))
    for name in dict.fromkeys(t.method for t in items if t.label == 1):
        chosen[name] = score.of_method(items, name)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, use in chosen.items():
        row: dict[str, dict[str, Any]] = {}
        for who, values in scores.items():
            known = use & np.isfinite(values)
            if known.any() or who == "student":
                row[who] = _figures(values[known], labels[known], groups[known], weights[known], SCORERS[who][1])
        best = None
        if baselines and not made[use].any() and not name.startswith("category "):
            wanted = "all" if name in ("overall", "fake") else name
            best = baselines.strongest(wanted, [t for t, used in zip(items, use, strict=True) if used])
        if best:
            values, known = best[1], np.flatnonzero(use)[np.isfinite(best[1])]
            figures = _figures(values[np.isfinite(values)], labels[known], groups[known], weights[known], False)
            row["trivial"] = {"nuisance": best[0], **figures}
        found[name] = row
    return found


def _figures(
    scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, weights: np.ndarray, decides: bool
) -> dict[str, Any]:
    figures = metrics.figures(scores, labels, 0.0, weights)
    if not decides:
        figures = replace(figures, balanced_accuracy=np.nan, real_recall=np.nan)
    low, high = metrics.auc_interval(scores, labels, groups, weights)
    return {**asdict(figures), "auc_low": low, "auc_high": high}


def lines(methods: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[tuple[str, ...]]:
    """The table's lines as text, in the order of COLUMNS; the name of a row stands in its first line alone."""
    for name, row in methods.items():
        shown = name
        for who, f in row.items():
            by = f"one number: {f['nuisance']}" if who == "trivial" else SCORERS[who][0]
            span = (
                "-"
                if f["auc_low"] is None or f["auc_low"] != f["auc_low"]
                else f"{f['auc_low']:.3f}-{f['auc_high']:.3f}"
            )
            rest = [f[k] for k in ("ap", "prevalence", "eer", "balanced_accuracy", "real_recall")]
            yield (
                shown,
                by,
                str(f["num_real"]),
                str(f["num_fake"]),
                _three(f["auc"]),
                span,
                *(_three(v) for v in rest),
            )
            shown = ""


def _three(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"


def title(variant: Mapping[str, Any]) -> str:
    """What a table is of, coverage first."""
    c = variant["coverage"]
    left = f" ({c['too_short']} too short)" if c["too_short"] else ""
    which = "matched clips, " if variant["clips"] == "matched" else ""
    return f"{which}{c['scored']} clips scored of {c['listed']} listed{left}, {c['pairs']} pairs made; trim {variant['trim']}"


def markdown(report: Mapping[str, Any]) -> str:
    """The whole report as Markdown."""
    said = [f"# {md(report['checkpoint'])} on split {report['split']} of {md(report['store'])}", ""]
    for variant in report["variants"]:
        said += [f"## {title(variant)}", "", _row(COLUMNS), _row(("---",) * 2 + ("--:",) * (len(COLUMNS) - 2))]
        said += [*(_row(tuple(map(md, line))) for line in lines(variant["methods"])), ""]
    said.append(
        f"Threshold and temperature: {report['fitted_on']}. Intervals: 95 %, groups of clips drawn with replacement. "
        "AP is to be read against the prevalence. "
        + ("" if report["audited"] else UNAUDITED.format(md(report["store"])))
    )
    return "\n".join([*said, "", MARK]) + "\n"


MARK = "<!-- by concord-av, student.evaluate -->"  # by which an earlier table is known, and nobody sees it
UNAUDITED = "No trivial baselines: run python -m pipelines.audit --store {} first."


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
