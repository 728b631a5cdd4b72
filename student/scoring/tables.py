"""Tables of an evaluation: the same clips scored by the student, the teachers, both together, and one trivial number.

A table has a row for all clips ("overall"), for each category of forgery (RVFA, FVRA, FVFA), for each method, and for
each source that has both classes ("source NAME": cut alike, so only the forgery differs), and in it one line per scorer.
AUC comes with its 95 % interval by group; below the table stands the overall one's by source. Terminal and Markdown have
the same content: all rows but those of sources beyond the largest SHOWN, which are in the JSON only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from concord.commands import as_called
from concord.text import counted
from concord.text import markdown as md
from store.similarity.intervals import auc_by_cluster
from student.scoring import metrics, score
from student.scoring.baseline import Baselines
from student.scoring.report import Line, Report, Table, Variant

COLUMNS = ("method", "by", "real", "fake", "AUC", "95 %", "AP", "prevalence", "EER", "balanced acc.", "real recall")
NAMES = ("method", "by")  # columns of text, which may be broken into lines
NAME = 30  # characters of a name that are kept on one line before columns are left out
ALWAYS = COLUMNS.index("95 %") + 1  # columns that are shown however narrow a terminal is
WHO = {"fit": "the fit", "detector": "the detector, in training,", "threshold": "the detector, for its threshold,"}
SHOWN = 12  # sources in a table for people
OF_SOURCE = "source "  # begins the name of a row
SCORERS = {  # name in the JSON: (as shown, whether its scores have a threshold at 0)
    "student": ("student", True),
    "teacher": ("teachers", True),
    "teacher_offset": ("teachers, best offset", False),
    "teacher_margin": ("teachers, its margin", False),
    "both": ("student + teachers", True),
}


@dataclass(frozen=True)
class Trials:
    """The input of a table, for n trials: `scores` f8 [n] by scorer, higher for fakes, 0 at the threshold if the scorer
    has one, and NaN if unknown; category, group, weight, source and first-named person (or "") [n] of each trial's clip; by
    scorer, whether it has learned from the clips of a trial (bool [n]), None if that is not recorded."""

    items: list[score.Trial]
    scores: Mapping[str, np.ndarray]
    categories: np.ndarray
    groups: np.ndarray
    weights: np.ndarray
    sources: np.ndarray
    people: np.ndarray
    seen: Mapping[str, np.ndarray | None] = field(default_factory=dict)

    def line(self, scores: np.ndarray, use: np.ndarray, decides: bool, nuisance: str = "", who: str = "") -> Line:
        """Figures of scores [n] of `who` on the trials `use` [n] bool that have one; at the threshold 0 if the scorer
        `decides`."""
        known = use & np.isfinite(scores)
        labels = np.array([t.label for t in self.items])[known]
        figures = metrics.figures(scores[known], labels, 0.0, self.weights[known])
        if not decides:
            figures = replace(figures, balanced_accuracy=np.nan, real_recall=np.nan)
        low, high = metrics.auc_interval(scores[known], labels, self.groups[known], self.weights[known])
        names = self.sources[known]
        count = len(set(names.tolist()) - {""})
        by_source = (float("nan"), float("nan"))
        if count > 1:
            by_source = auc_by_cluster(scores[known], labels == 1, names.astype(str), self.weights[known])
        groups = self.groups[known & (self.weights > 0)]
        several, drawn = len(np.unique(groups)), metrics.units(groups)[1] if len(groups) else 0
        named = set(self.people[known].tolist())
        return Line(
            figures,
            low,
            high,
            nuisance,
            self._seen(who, known),
            count,
            *by_source,
            groups=several,
            by_clip=drawn > several,
            people=0 if "" in named else len(named),
        )

    def _seen(self, who: str, use: np.ndarray) -> int | None:
        """Number of clips of the trials `use` that a scorer has learned from."""
        if who not in self.seen:
            return 0
        seen = self.seen[who]
        return None if seen is None else len({self.items[k].lips for k in np.flatnonzero(use & seen)})


def table(trials: Trials, baselines: Baselines | None) -> dict[str, dict[str, Line]]:
    """A row for "overall", each "category NAME", each method and each "source NAME", with a line for each scorer that
    has scores there.

    "overall" covers the clips if they have both classes, else the made pairs. Pairs have no trivial baseline: fakes and
    twins are cut from the same clips.
    """
    items, categories = trials.items, trials.categories
    labels = np.array([t.label for t in items])
    made = np.array([t.made for t in items], bool)
    chosen = {"overall": score.headline(items)}
    for name in sorted({str(c) for c, y in zip(categories[~made], labels[~made], strict=True) if c and y == 1}):
        chosen[f"category {name}"] = ~made & ((labels == 0) | (categories == name))
    for name in dict.fromkeys(t.method for t in items if t.label == 1):
        chosen[name] = score.of_method(items, name)
    for name in sorted(set(trials.sources[chosen["overall"]].tolist()) - {""}):
        of_source = chosen["overall"] & (trials.sources == name)
        if len(np.unique(labels[of_source])) == 2:
            chosen[f"{OF_SOURCE}{name}"] = of_source
    found: dict[str, dict[str, Line]] = {}
    for name, use in chosen.items():
        row = {
            who: trials.line(values, use, decides=SCORERS[who][1], who=who)
            for who, values in trials.scores.items()
            if who == "student" or (use & np.isfinite(values)).any()
        }
        if baselines and not made[use].any() and not name.startswith("category "):
            wanted = "all" if name in ("overall", "fake") or name.startswith(OF_SOURCE) else name
            best = baselines.strongest(wanted, [t for t, used in zip(items, use, strict=True) if used])
            if best:
                values = np.full(len(items), np.nan)
                values[use] = best[1]
                row["trivial"] = trials.line(values, use, decides=False, nuisance=best[0])
        found[name] = row
    return found


def lines(methods: Table) -> Iterator[tuple[str, ...]]:
    """The table's lines as text, in the order of COLUMNS; the name of a row is only in its first line."""
    clips = {name: sum(_counts(row)) for name, row in methods.items() if name.startswith(OF_SOURCE)}
    large = set(sorted(clips, key=lambda name: -clips[name])[:SHOWN])
    for name, row in methods.items():
        if name in clips and name not in large:
            continue
        shown = name
        for who, line in row.items():
            by = f"one number: {line.nuisance}" if who == "trivial" else SCORERS[who][0]
            by += {None: " ?", 0: ""}.get(line.seen, " *")
            f = line.figures
            span = "-" if math.isnan(line.auc_low) else f"{line.auc_low:.3f}-{line.auc_high:.3f}"
            rest = (f.ap, f.prevalence, f.eer, f.balanced_accuracy, f.real_recall)
            counts = str(f.num_real), str(f.num_fake)
            yield (shown, by, *counts, _three(f.auc), span, *(_three(value) for value in rest))
            shown = ""


def fitting(rows: Sequence[tuple[str, ...]], width: int) -> int:
    """How many of COLUMNS a terminal of that width shows whole: the last ones are left out first, ALWAYS are shown."""
    longest = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    most = [NAME if name in NAMES else width for name in COLUMNS]
    wide = [min(pair) + 3 for pair in zip(longest, most, strict=True)]  # with a line and two spaces
    return next((n for n in range(len(COLUMNS), ALWAYS, -1) if sum(wide[:n]) < width), ALWAYS)


def _counts(row: Mapping[str, Line]) -> tuple[int, int]:
    """Real and fake clips of a row, by its first scorer."""
    figures = next(iter(row.values())).figures
    return figures.num_real, figures.num_fake


def _three(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def title(variant: Variant) -> str:
    """The caption of a table, coverage first."""
    c = variant.coverage
    left = f" ({c.too_short} too short)" if c.too_short else ""
    which = "matched clips, " if variant.clips == "matched" else ""
    scored, pairs = counted(c.scored, "clip"), counted(c.pairs, "pair")
    return f"{which}{scored} scored of {c.listed} listed{left}, {pairs} made; trim {variant.trim}"


def warnings(variant: Variant) -> Iterator[str]:
    """What the scorers have seen of the clips, and what the marks * and ? in the table mean."""
    told = [one.text(WHO[who]) for who, one in variant.seen.items() if one.of]
    if told:
        yield f"{'; '.join(told)}."[:1].upper() + f"{'; '.join(told)}."[1:]
    yield from _drawn(variant)
    lines = {who: line for who, line in variant.methods.get("overall", {}).items() if not math.isnan(line.source_low)}
    if lines:
        spans = [f"{SCORERS[who][0]} {_span(line)}" for who, line in lines.items() if who in SCORERS]
        most = max(line.sources for line in lines.values())
        yield f"95 % for other sources, drawing the {most} known ones whole: {', '.join(spans)}."
    sources = sum(name.startswith(OF_SOURCE) for name in variant.methods)
    if sources > SHOWN:
        yield f"{sources - SHOWN} smaller sources with both classes are in the JSON only."
    marks = {line.seen for row in variant.methods.values() for line in row.values()}
    if any(marks - {None, 0}):
        yield "* learned from some of these clips: too good, and no figure for new ones."
    if None in marks:
        yield "? not recorded whether it has learned from these clips."


def _drawn(variant: Variant) -> Iterator[str]:
    """What the overall interval says of other people, where that is not what its groups say."""
    line = variant.methods.get("overall", {}).get("student")
    if line is None:
        return
    if line.groups == 1:
        yield "95 %: -, since these clips are of one group (person, source) and say nothing about others."
    elif line.by_clip:
        few = f"{line.groups} groups (people, sources)" + ", one with most clips" * (line.groups >= metrics.FEW_GROUPS)
        yield f"95 %: of other clips of these {few}; that is too few to draw groups, so for new people it is wider."
    elif line.people == 1:
        yield "95 %: of other clips of this person; all are of one and say nothing about others."


def _span(line: Line) -> str:
    return f"{_three(line.figures.auc)} ({_three(line.source_low)}-{_three(line.source_high)})"


def markdown(report: Report) -> str:
    """The whole report as Markdown."""
    said = [f"# {md(report.checkpoint)} on split {report.split} of {md(report.store)}", ""]
    for variant in report.variants:
        said += [f"## {title(variant)}", "", _row(COLUMNS), _row(("---",) * 2 + ("--:",) * (len(COLUMNS) - 2))]
        said += [*(_row(tuple(map(md, line))) for line in lines(variant.methods)), ""]
        said += [part for text in warnings(variant) for part in (md(text), "")]
    said.append(
        f"Threshold and temperature: {report.fitted_on}. Intervals: 95 %, groups of clips drawn with replacement, "
        "single clips where a note says so. Read AP against the prevalence. "
        + ("" if report.audited else unaudited(md(report.store)))
    )
    return "\n".join([*said, "", MARK]) + "\n"


MARK = "<!-- by concord-av, student.evaluate -->"  # an invisible mark that identifies an earlier table


def unaudited(store: str) -> str:
    """What is missing without an audit of the store, whose name is as the text needs it."""
    return as_called("No trivial baselines: run python -m pipelines.audit --store {} first.").format(store)


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
