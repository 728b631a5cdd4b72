"""The figures as one page in a terminal."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from concord.text import plain
from store.similarity import WINDOWS

Told = Mapping[str, Any]

WIDTH = 150  # columns where nobody looks at a terminal
WINDOW = {"5": "5 frames", "25": "1 second", "clip": "clip"}
AGAINST = ("others", "shift_4", "shift_8")


def show(found: Told) -> None:
    """Print the page."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    for line in head(found):
        console.print(Text(plain(line)))
    for table in tables(found):
        console.print()
        console.print(table)
    for line in foot(found):
        console.print(Text(plain(line), style="dim"))


def head(found: Told) -> Iterator[str]:
    """What was measured, by what, and what could not be."""
    on = found["rests_on"]
    clips, basis, people = on["clips"], on["basis"], on["people"]
    limited = f" of {clips['listed']:,} listed" if clips["asked"] < clips["listed"] else ""
    kinds = ", ".join(f"{clips[kind]:,} {kind}" for kind in ("real", "forged", "unlabelled") if clips[kind])
    who = f"{people['named']:,} people named"
    if unknown := people["clips_of_unknown_people"]:
        who += f", {unknown:,} clips of unknown people, each counted as a person of its own"
    yield f"{on['manifest']}: {clips['asked']:,} clips{limited} ({kinds}); {who}"
    yield f"evidence from {on['evidence']['from']}, {clips['read']:,} clips, {clips['frames']:,} frames"
    seen = on["fit_has_seen"]
    taught = (
        "how many of these clips it has seen is not known" if seen is None else f"it has seen {seen:,} of these clips"
    )
    yield f"fit: {basis['fit']['kind']}, {basis['fit']['from']}; {taught}"
    if within := on["sound_moved_within"]:
        yield f"moved: every sound, own or not, by up to {within} frames to where it fits best, as predict does"
    if basis["student"]:
        yield f"student: {basis['student']['model']}, {basis['student']['checkpoint']}"
    yield f"predict: {basis['calibration']['text']}"
    if on["lost"]["clips"]:
        why = ", ".join(f"{count:,} {reason}" for reason, count in on["lost"]["reasons"].items())
        yield f"not read: {on['lost']['clips']:,} ({why}); first: {on['lost']['first'][0]['message']}"


def tables(found: Told) -> Iterator[Table]:
    """Own sound, decisions, forgeries."""
    yield own_sound(found["own_sound"])
    yield decisions(found["decisions"])
    if found["forgeries"]["methods"]:
        yield forgeries(found["forgeries"], found["baselines"])


def own_sound(told: Told) -> Table:
    """AUC of own sound by corpus and window."""
    table = _table(
        "Own sound against other sound: AUC (95 % by person)",
        ["corpus", "over"],
        ["own", "another clip's sound", "Brier", "shifted by 4 frames", "shifted by 8 frames"],
    )
    corpora = {**told["corpora"], **({"all": told} if len(told["corpora"]) != 1 else {})}
    for name, mine in corpora.items():
        rows = [(WINDOW[w], mine[w]) for w in WINDOWS]
        rows += [(f"{WINDOW[w]}, moved", mine["moved"][w]) for w in WINDOWS if "moved" in mine]
        for k, (over, row) in enumerate(rows):
            cells = [_auc(row[kind]) for kind in AGAINST]
            own = f"{row['others']['own']:,}"
            table.add_row(*_cells(name if not k else "", over, own, cells[0], _number(row["brier"]), *cells[1:]))
        if "student" in mine:
            for who, row in (("student", mine["student"]), ("its teachers", _of_teachers(mine["student"]))):
                cells = [_auc(row[kind]) for kind in AGAINST]
                own = f"{row['others']['own']:,}"
                table.add_row(*_cells("", f"same pairs, {who}", own, cells[0], "", *cells[1:]))
        table.add_section()
    return table


def _of_teachers(student: Told) -> Told:
    return {kind: row["teachers"] for kind, row in student.items()}


def decisions(told: Told) -> Table:
    """What predict says, by corpus and kind of clip."""
    table = _table(
        f"Decisions of predict: {_percent(told['false_alarms'])} false alarms of all real clips, "
        f"{_percent(told['misses'])} misses of all swapped ones; {_percent(told['decided_real'])} of real and "
        f"{_percent(told['decided_swapped'])} of swapped clips decided",
        ["corpus", "clips"],
        ["number", "called real", "called fake", "cannot decide"],
        ["reasons"],
    )
    corpora = {**told["corpora"], **({"all": told} if len(told["corpora"]) != 1 else {})}
    for name, mine in corpora.items():
        shown = name
        for kind, text in (("real", "own sound"), ("swapped", "another's sound"), ("forged", "forged")):
            row = mine[kind]
            if row["clips"]:
                counts = [_of(row[said], row["clips"]) for said in ("real", "fake", "undecided")]
                why = ", ".join(f"{count:,} {reason}" for reason, count in row["reasons"].items())
                table.add_row(*_cells(shown, text, f"{row['clips']:,}", *counts, why))
                shown = ""
        table.add_section()
    return table


def forgeries(told: Told, baselines: Told) -> Table:
    """AUC of forged against real clips, by method and in each matched set."""
    scorers = list(told["scorers"])
    mixed = "; real and forged clips are of different corpora" if told["mixed_corpora"] else ""
    table = _table(
        f"Forged against real clips: AUC (95 % by person){mixed}",
        ["forged"],
        ["forged", "real", "people", *scorers],
        ["best trivial number"],
    )

    def line(name: str, path: tuple[str, ...], best: Told | None) -> None:
        rows = [_at(told["scorers"][scorer], path) for scorer in scorers]
        counts = [max(row[kind] for row in rows) for kind in ("forged", "real", "people")]
        trivial = f"{_auc(best)} {best['number']}" if best else "-"
        table.add_row(*_cells(name, *(f"{count:,}" for count in counts), *map(_auc, rows), trivial))

    line("all", (), baselines["strongest"])
    for method in told["methods"]:
        line(f"  {method}", ("methods", method), baselines["methods"].get(method))
    for source, part in told["by_source"].items():
        table.add_section()
        line(f"within {source}", ("by_source", source), baselines["by_source"].get(source))
        for method in part["methods"] if len(part["methods"]) > 1 else ():
            line(f"  {method}", ("by_source", source, "methods", method), None)
    return table


def foot(found: Told) -> Iterator[str]:
    """How to read the tables."""
    who = ", ".join(f"{count:,} of {kind}" for kind, count in found["own_sound"]["pairs"].items() if count)
    yield f"Other sounds: {who or 'none'}; seed {found['rests_on']['seed']}. AUC .5 is chance."
    yield from _by_source(found["forgeries"])
    yield "similarity, margin: forged = low. both: the student and half the margin, each by its deviation."
    yield "A detector that does not beat the trivial number has not been shown to work."


def _by_source(told: Told | None) -> Iterator[str]:
    scorers = told["scorers"] if told else {}
    spans = ", ".join(f"{name} {_span(row['sources'])}" for name, row in scorers.items() if _is_known(row["sources"]))
    if told and spans:
        yield f"Forgeries, 95 % for other sources, drawing the {told['sources']['count']} known ones: {spans}."


def _is_known(sources: Told) -> bool:
    return sources["count"] > 1 and sources["low"] is not None and not math.isnan(sources["low"])


def _span(sources: Told) -> str:
    return f"{sources['low']:.2f} to {sources['high']:.2f}"


def _at(told: Told, path: tuple[str, ...]) -> Told:
    for name in path:
        told = told[name]
    return told


def _table(title: str, left: list[str], right: list[str], last: list[str] | None = None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right")
    for name in last or ():
        table.add_column(name)
    return table


def _cells(*values: str) -> Iterator[Text]:
    return (Text(plain(value)) for value in values)


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}".removeprefix("0")


def _auc(row: Told) -> str:
    if row["auc"] is None or math.isnan(row["auc"]):
        return "-"
    return f"{_number(row['auc'])} ({_number(row['low'])}-{_number(row['high'])})"


def _percent(share: float) -> str:
    return "no" if math.isnan(share) else f"{100 * share:.1f} %"


def _of(count: int, total: int) -> str:
    return f"{count:,} ({100 * count / total:.0f} %)"
