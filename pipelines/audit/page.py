"""`audit.html`: the result of an audit as one page without network access or scripts, in light and dark mode.

The first screen is for readers who have never heard of a leak; the tables below are for those who fix it. The template
is `templates/audit.html.j2`; the sentences of the cards and the drawings are made here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from concord.text import counted
from concord.text import html as t
from pipelines.audit import words
from pipelines.audit.found import Found
from pipelines.audit.nuisances import means
from pipelines.audit.shortcuts import ALL, TOGETHER, Shortcut, why_none
from pipelines.audit.words import Check
from pipelines.ui.pages import render

COMMAND = "pipelines.audit"
METHODS = 14  # lines of one plot
MARKS = {
    "found": ("bad", "found"),
    "none": ("good", "not there"),
    "few": ("warn", "too few to say"),
    "unchecked": ("warn", "not checked"),
}


@dataclass(frozen=True)
class Card:
    """One card of the first screen."""

    tone: str
    title: str
    figure: str
    text: str


@dataclass(frozen=True)
class Numbers:
    """Shortcuts of one corpus: nuisances by method, and a drawing of the worst single number."""

    corpus: str
    nuisances: Sequence[str]
    methods: Sequence[str]
    at: Mapping[tuple[str, str], Shortcut]
    most: Mapping[str, Shortcut]  # by method, the one with most clips
    plotted: str
    plot: Markup


def page(found: Found) -> str:
    """The whole page for the result of `pipelines.audit.found.audit`."""
    tone, head, why = words.headline(found)
    soft = found.soft_labels or {}
    return render(
        "pipelines.audit/audit.html.j2",
        COMMAND,
        title=head,
        tone=tone,
        why=why,
        found=found,
        cards=cards(found),
        checks=words.checks(found),
        marks=MARKS,
        corpora=[numbers(found, name) for name in dict.fromkeys(s.corpus for s in found.shortcuts)],
        means=means,
        balance=balance(found),
        histograms={name: histogram(count) for name, count in soft.items()} if any(map(sum, soft.values())) else {},
    )


def balance(found: Found) -> dict[str, dict[str, int]]:
    """Rows by part and label, by method and by category, each if any is named."""
    titles = {"split_label": "part and label", "method": "method", "category": "category"}
    named = {title: {kind: n for kind, n in found.counts[name].items() if kind} for name, title in titles.items()}
    return {title: count for title, count in named.items() if count}


def cards(found: Found) -> list[Card]:
    """In plain words the worst shortcut, and shared clips and people; for each what was measured and on how many
    clips."""
    made = {c.what: c for c in words.checks(found)}
    labels = ", ".join(f"{n:,} {name}" for name, n in found.counts["label"].items())
    looked = Card(
        "plain", "What was looked at", counted(found.distinct, "clip"), f"in {counted(found.rows, 'row')}: {labels}."
    )
    return [_outside(found), _clips(found, made), _people(found, made), looked]


def _outside(found: Found) -> Card:
    """The card of the worst number."""
    short = found.shortcuts
    if not short:
        return Card("warn", "Outside not checked", "–", f"{why_none(found.counts['label']).capitalize()}.")
    worst = max((s for s in found.above if s.nuisance != TOGETHER), key=_auc, default=None)
    worst = worst or max(found.above, key=_auc, default=None)
    if worst:
        whose = "one fake" if worst.method == ALL else f"one fake made by {worst.method}"
        text = (
            f"Take one real clip and {whose}. A rule that knows only one number ({means(worst.nuisance)}) picks the fake "
            "this often; guessing gets 50. A detector may learn that number instead of the forgery."
        )
        return Card("bad", "Fakes can be recognised without their content", f"{_times(worst.auc)} in 100", text)
    judged = [s for s in short if not s.few]
    if not judged:
        worst = max(short, key=_auc)
        text = f"The worst number, {words.measured(worst)}. With so few, this can be chance: {words.few(worst)}."
        return Card("warn", "Too few to say", f"{counted(worst.fakes, 'fake')}, {counted(worst.reals, 'real')}", text)
    worst = max(judged, key=_auc)
    left = sorted({s.method for s in short} - {s.method for s in judged})
    more = f" Too few clips to say for {', '.join(left)}." if left else ""
    title, figure = "No number identifies fakes better than chance", f"{_times(worst.auc)} in 100 at most"
    return Card("warn" if left else "good", title, figure, f"The worst number, {words.measured(worst)}.{more}")


def _clips(found: Found, made: Mapping[str, Check]) -> Card:
    """The card of clips in two parts."""
    leak = max((x for x in found.leaks if x.kind != "identity"), key=lambda x: x.count, default=None)
    if leak is None:
        return _not_shared(found, made, ("files", "fingerprints"), "clip")
    early, late = leak.splits
    text = (
        f"clips of part “{late}” are also in part “{early}”, like exam questions that were in the exercise book. "
        "A detector may simply remember them."
    )
    return Card("bad", "Test clips are in the training data", f"{leak.count:,} of {leak.of:,}", text)


def _people(found: Found, made: Mapping[str, Check]) -> Card:
    """The card of people in two parts."""
    leak = next((x for x in found.leaks if x.kind == "identity"), None)
    if leak is None:
        return _not_shared(found, made, ("people", "sources"), "person")
    early, late = leak.splits
    who = "people or sources (column group)" if leak.who == "group" else "people"
    text = (
        f"{who} of part “{late}” also appear in part “{early}”. A detector may know their faces and voices; its score says "
        "little about unknown people."
    )
    return Card("bad", "Test people are in the training data", f"{leak.count:,} of {leak.of:,}", text)


def _not_shared(found: Found, made: Mapping[str, Check], kinds: Sequence[str], what: str) -> Card:
    """The card for a check without a finding, or one that was not made."""
    kinds = [kind for kind in kinds if kind in made]
    done = [kind for kind in kinds if made[kind].state != "unchecked"]
    said = " ".join(f"{kind.capitalize()}: {made[kind].text}." for kind in kinds)
    if not done or (what == "person" and words.people_state(made) == "groups"):
        return Card("warn", f"Shared {'people' if what == 'person' else 'clips'} not checked", "–", said)
    sure = any(made[kind].state == "none" for kind in done)
    on = max(found.checked[kind].on for kind in done)
    title = f"No {what} shared" + ("" if sure else ", of very few")
    return Card("good" if sure else "warn", title, f"0 on {counted(on, 'clip')}", said)


def _auc(short: Shortcut) -> float:
    return short.auc


def _times(auc: float) -> str:
    return "100" if auc >= 0.9995 else f"{100 * auc:.1f}"


def numbers(found: Found, corpus: str) -> Numbers:
    """The shortcuts of a corpus for its table and its plot."""
    short = [s for s in found.shortcuts if s.corpus == corpus]
    kinds = list(dict.fromkeys(s.nuisance for s in short))
    named = {s.method for s in short}
    methods = sorted(named - {ALL}) + [ALL] * (ALL in named)
    at = {(s.nuisance, s.method): s for s in short}
    most = {m: max((s for s in short if s.method == m), key=lambda s: s.fakes) for m in methods}
    plotted = next((kind for kind in kinds if kind != TOGETHER), kinds[0])
    lines = [at[plotted, m] for m in methods if (plotted, m) in at][-METHODS:]
    return Numbers(corpus, kinds, methods, at, most, plotted, plot(lines, found.allow))


def plot(short: Sequence[Shortcut], allow: float) -> Markup:
    """A dot and its interval for each method, from 0.4 to 1, as SVG."""
    left, right, line = 190, 690, 24
    height = line * len(short) + 34

    def x(value: float) -> float:
        return left + (right - left) * (min(max(value, 0.4), 1) - 0.4) / 0.6

    parts = []
    for tick in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        mark, said, at = ("chance", " guessing", x(tick)) if tick == 0.5 else ("g", "", x(tick))
        parts.append(
            f'<line class="{mark}" x1="{at:.1f}" x2="{at:.1f}" y1="4" y2="{height - 28}"/>'
            f'<text class="s" x="{at:.1f}" y="{height - 12}" text-anchor="middle">{tick:g}{said}</text>'
        )
    for k, one in enumerate(short):
        y, kind = 16 + k * line, "bad" if one.above(allow) else "ok"
        name = "all fakes" if one.method == ALL else one.method
        name = name if len(name) <= 26 else f"{name[:25]}…"
        parts.append(
            f'<text x="{left - 14}" y="{y + 4}" text-anchor="end">{t(name)}</text>'
            f'<line class="{kind}" stroke-width="3" x1="{x(one.low):.1f}" x2="{x(one.high):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle class="{kind}" cx="{x(one.auc):.1f}" cy="{y}" r="5"/>'
            f'<text x="{right + 14}" y="{y + 4}">{one.auc:.3f}</text>'
        )
    svg = f'<svg class="plot" viewBox="0 0 760 {height}" role="img" aria-label="AUC by method">{"".join(parts)}</svg>'
    return Markup(svg)


def histogram(count: Sequence[int]) -> Markup:
    """Bars of soft labels from 0 to 1, the highest of full height, as SVG."""
    most, wide = max(count) or 1, 240 / len(count)
    high = [56 * n / most for n in count]
    bars = "".join(
        f'<rect class="ok" x="{k * wide:.1f}" y="{60 - y:.1f}" width="{wide - 1:.1f}" height="{y:.1f}"/>'
        for k, y in enumerate(high)
    )
    return Markup(
        '<svg class="hist" viewBox="0 0 240 62" role="img" aria-label="soft labels from 0 to 1">'
        f'{bars}<line class="g" x1="0" x2="240" y1="60.5" y2="60.5"/></svg>'
    )
