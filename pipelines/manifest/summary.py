"""Summary of a manifest, in lines for the terminal: clips by kind and split, people, hours; and the result of a
protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from concord.text import counted
from pipelines.audit import coverage, leaks, nuisances
from pipelines.audit.shortcuts import FEW_CLIPS
from pipelines.corpora import faults
from pipelines.corpora.manifest import SPLITS, Row
from pipelines.corpora.splits import Splits
from pipelines.manifest.edit import LABELS
from pipelines.manifest.match import Matched


def table(lines: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """Lines of cells as aligned text; the first `left` columns begin at the left, numbers end at the right."""
    width = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [
            cell.ljust(w) if k < left else cell.rjust(w) for k, (cell, w) in enumerate(zip(line, width, strict=True))
        ]
        yield f"  {'  '.join(cells)}".rstrip()


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """Every corpus by label, category and method: clips by split, people, hours as listed; then groups."""
    seconds = nuisances.listed(rows)["duration"].to_numpy()
    splits = [split for split in (*SPLITS, "") if any(row.split == split for row in rows)]
    for corpus in sorted({row.corpus for row in rows}):
        kinds: dict[tuple[int, str, str], list[int]] = {}
        for k, row in enumerate(rows):
            if row.corpus == corpus:
                kinds.setdefault((row.label, row.category, row.method), []).append(k)
        lines = [["label", "category", "method", *(s or "no split" for s in splits), "clips", "people", "hours"]]
        for kind, mine in [*sorted(kinds.items()), ((9, "", ""), [k for some in kinds.values() for k in some])]:
            count = Counter(rows[k].split for k in mine)
            people = len({name for k in mine for name in rows[k].identities})
            lines.append(
                [
                    LABELS.get(kind[0], "all"),
                    kind[1] or "-",
                    kind[2] or "-",
                    *(f"{count[s]:,}" for s in splits),
                    f"{len(mine):,}",
                    f"{people:,}" if people else "-",
                    hours(seconds[mine]),
                ]
            )
        yield corpus
        yield from table(lines, 3)
    groups = Counter(row.group or row.id for row in rows)
    if rows:
        biggest = 100 * max(groups.values()) / len(rows)
        parts = f"the biggest holds {biggest:.1f} % of the rows"
        if any(row.identities for row in rows):
            told = f"{counted(len(groups), 'group')} of people, {parts}"
        elif len(groups) < len(rows):
            told = f"no people are named; {counted(len(groups), 'group')} of clips, {parts}"
        else:
            told = "no people are named; each clip is its own group"
        yield f"{counted(len(rows), 'row')}; {told}"


def faulty(rows: Sequence[Row]) -> Iterator[str]:
    """A line per kind of fault, with an example."""
    for fault in faults.summary(faults.of_rows(rows)):
        yield f"  fault {fault.kind}: {fault.count:,}, such as {fault.examples[0].text}"


def hours(seconds: np.ndarray) -> str:
    """Listed hours of clips [n]; "+" if some are unknown, "-" if all are."""
    known = seconds[~np.isnan(seconds)]
    return f"{known.sum() / 3600:.1f}{'+' if len(known) < len(seconds) else ''}" if len(known) else "-"


def protocol(rows: Sequence[Row], made: Splits) -> Iterator[str]:
    """The result of a protocol: the table of the clips with a split, those without one, and what train and test
    share."""
    chosen = made.rows(rows)
    yield from made.notes
    yield from summary(chosen)
    yield f"{len(chosen):,} of {counted(len(rows), 'row')} with a split"
    for why, count in made.left_out.most_common():
        yield f"  without: {count:,} {why}"
    shared = leaks.find(chosen)
    for leak in shared:
        yield f"  leak: {leak.text()}"
    for kind, told in coverage.checked(chosen).items():
        if kind != "fingerprints" and not (kind == "sources" and told.why == coverage.FOLLOW):
            was = f"not checked: {told.why}" if told.why else f"compared on {told.on:,} of {counted(told.of, 'clip')}"
            yield f"  {kind}: {was}"
    if not shared:
        yield "  nothing that was compared is on two sides"


def matched(lines: Sequence[Matched], names: Sequence[str]) -> Iterator[str]:
    """The remaining clips of each method, and the AUC of every number before and after."""
    every = list(dict.fromkeys(name for line in lines for name in line.before))
    shown = [*(n for n in names if n in every), *(n for n in every if n not in names)]
    shown = [n for n in shown if any(line.before[n] != 0.5 and line.before[n] == line.before[n] for line in lines)]
    for corpus in dict.fromkeys(line.corpus for line in lines):
        mine = [line for line in lines if line.corpus == corpus]
        yield f"{corpus}: remaining fakes and reals of each method; AUC of each number before > after (0.5 = guessing)"
        cells = [["method", "fakes", "reals", "effective", *shown]]
        for line in mine:
            cells.append(
                [
                    line.method or "-",
                    f"{line.kept_fakes:,} of {line.fakes:,}",
                    f"{line.kept_reals:,} of {line.reals:,}",
                    f"{line.effective:.0f}",
                    *(f"{_auc(line.before[n])} > {_auc(line.after[n])}" for n in shown),
                ]
            )
        yield from table(cells)
        for line in mine:
            whose = line.method or "fakes without a method"
            if 0 < min(line.kept_fakes, line.kept_reals) < FEW_CLIPS:
                yield f"  {whose}: too few are left for the AUC after matching to mean anything; {FEW_CLIPS} of each are needed"
            if not line.kept_fakes:
                yield f"  {whose}: rows kept 0: no selection makes its fakes and the reals equal in {', '.join(names)}"
        if unknown := max(line.unknown for line in mine):
            yield f"  left out, without {', '.join(names)}: {counted(unknown, 'clip')}"


def _auc(value: float) -> str:
    return f"{value:.3f}" if value == value else "-"
