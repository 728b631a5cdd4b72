"""`audit.html`: what an audit found, as one page that needs no network and no script, by day and by night.

The first screen is for a person who has never heard of a leak; the tables below are for the one who has to mend it. Names come
from files and may be hostile: text goes through `t`, and the page forbids scripts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from concord.text import html as t
from pipelines.audit import words as audit_words
from pipelines.audit.nuisances import means
from pipelines.audit.shortcuts import why_none
from pipelines.ui.html import STYLE
from store import output

COMMAND = "pipelines.audit"
METHODS = 14  # lines of one plot
MORE = """
.say{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(21rem,100%),1fr));gap:.75rem;margin:0 0 1rem}
.say div{background:var(--card);border:1px solid var(--line);border-top:.3rem solid var(--tone);border-radius:.6rem;
padding:.8rem 1rem}
.say b{display:block;font-size:1.9rem;font-weight:600;line-height:1.2;font-variant-numeric:tabular-nums}
.say h2{margin:.1rem 0 .3rem}
svg text{fill:var(--ink);font:12px system-ui,sans-serif}
svg .s{fill:var(--soft)}
svg .g{stroke:var(--line);stroke-width:1}
svg .chance{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3}
svg .bad{fill:var(--bad);stroke:var(--bad)}
svg .ok{fill:var(--fill);stroke:var(--fill)}
svg.hist{display:block;width:15rem;height:3.9rem}
svg.plot{display:block;width:100%;min-width:34rem;height:auto}
td.red{color:var(--bad);font-weight:600}
td.state{color:var(--tone);font-weight:600;white-space:nowrap}
td.told{min-width:18rem;overflow-wrap:anywhere}
"""


def page(found: Mapping[str, Any]) -> str:
    """The whole page for what `pipelines.audit.audit` gave."""
    tone, head, why = audit_words.headline(found)
    names = ", ".join(found["counts"]["corpus"])
    body = [
        f'<header class="{tone}"><p class="kicker">concord-av audit of {t(names)}</p>'
        f"<h1>{t(head)}</h1><p>{t(why)}</p></header>",
        _first(found),
        _checked(found),
        *(_corpus(name, found) for name in dict.fromkeys(s["corpus"] for s in found["shortcuts"])),
        _leaks(found),
        _soft_labels(found.get("soft_labels")),
        _faults(found["faults"]),
        _balance(found["counts"]),
    ]
    return (
        f"{output.head(COMMAND)}<title>{t(head)}</title>"
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="color-scheme" content="light dark">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<style>{STYLE}{MORE}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def _first(found: Mapping[str, Any]) -> str:
    """Cards in plain words: the worst shortcut, clips and people on both sides; of each what was measured and on how many."""
    made = {c.what: c for c in audit_words.checks(found)}
    cards = [_outside(found), _clips(found, made), _people(found, made)]
    cards.append(
        ("plain", "What was looked at", f"{found['distinct']:,} clips",
         f"in {found['rows']:,} rows: " + ", ".join(f"{n:,} {name}" for name, n in found["counts"]["label"].items()) + ".")
    )  # fmt: skip
    told = (
        f'<div class="{tone}"><h2>{t(title)}</h2><b>{t(number)}</b><p>{t(said)}</p></div>'
        for tone, title, number, said in cards
    )
    return f'<div class="say">{"".join(told)}</div>'


def _outside(found: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """The card of the worst number: tone, title, figure, sentence."""
    short = found["shortcuts"]
    if not short:
        return "warn", "Outside not checked", "–", f"{why_none(found['counts']['label']).capitalize()}."
    worst = max((s for s in short if s["finding"] and s["nuisance"] != "together"), key=_auc, default=None)
    worst = worst or max((s for s in short if s["finding"]), key=_auc, default=None)
    if worst:
        whose = "one fake" if worst["method"] == "all" else f"one fake made by {worst['method']}"
        return (
            "bad", "Fakes can be told from outside", f"{_times(worst['auc'])} in 100",
            f"Take one real clip and {whose}. A rule that knows one number alone ({means(worst['nuisance'])}) picks the fake "
            "this often; guessing gets 50. A detector may learn that number instead of the forgery.",
        )  # fmt: skip
    judged = [s for s in short if not s["few"]]
    if not judged:
        worst = max(short, key=_auc)
        return (
            "warn", "Too few to say", f"{worst['fakes']:,} fakes, {worst['reals']:,} reals",
            f"The worst number, {audit_words.measured(worst)}. Luck does that, too, with so few: {audit_words.few(worst)}.",
        )  # fmt: skip
    worst = max(judged, key=_auc)
    left = sorted({s["method"] for s in short} - {s["method"] for s in judged})
    more = f" Too few to say of {', '.join(left)}." if left else ""
    return (
        "warn" if left else "good", "No number tells fakes beyond luck", f"{_times(worst['auc'])} in 100 at most",
        f"The worst number, {audit_words.measured(worst)}.{more}",
    )  # fmt: skip


def _clips(found: Mapping[str, Any], made: Mapping[str, audit_words.Check]) -> tuple[str, str, str, str]:
    """The card of clips in two parts."""
    clips = max((x for x in found["leaks"] if x["kind"] != "identity"), key=lambda x: x["count"], default=None)
    if clips:
        early, late = clips["splits"]
        return (
            "bad", "The test was in the training", f"{clips['count']:,} of {clips['of']:,}",
            f"clips of part “{late}” are also in part “{early}”, like exam questions that were in the exercise book. "
            "A detector may simply remember them.",
        )  # fmt: skip
    return _not_shared(found, made, ("files", "fingerprints"), "clip")


def _people(found: Mapping[str, Any], made: Mapping[str, audit_words.Check]) -> tuple[str, str, str, str]:
    """The card of people in two parts."""
    people = next((x for x in found["leaks"] if x["kind"] == "identity"), None)
    if people:
        early, late = people["splits"]
        who = "people or sources (column group)" if people["who"] == "group" else "people"
        return (
            "bad", "The test shows people from the training", f"{people['count']:,} of {people['of']:,}",
            f"{who} of part “{late}” also appear in part “{early}”. A detector may know their faces and voices; its "
            "score says little about people it has never met.",
        )  # fmt: skip
    return _not_shared(found, made, ("people", "sources"), "person")


def _not_shared(
    found: Mapping[str, Any], made: Mapping[str, audit_words.Check], kinds: Sequence[str], what: str
) -> tuple[str, str, str, str]:
    """The card of what is in one part alone, or was not looked at."""
    kinds = [kind for kind in kinds if kind in made]
    done = [kind for kind in kinds if made[kind].state != "unchecked"]
    said = " ".join(f"{kind.capitalize()}: {made[kind].text}." for kind in kinds)
    if not done:
        return "warn", f"Shared {'people' if what == 'person' else 'clips'} not checked", "–", said
    sure = any(made[kind].state == "none" for kind in done)
    on = max(found["checked"][kind]["on"] for kind in done)
    return (
        "good" if sure else "warn",
        f"No {what} shared" + ("" if sure else ", of very few"),
        f"0 on {on:,} clips",
        said,
    )


def _auc(short: Mapping[str, Any]) -> float:
    return short["auc"]


def _times(auc: float) -> str:
    return "100" if auc >= 0.9995 else f"{100 * auc:.1f}"


def _checked(found: Mapping[str, Any]) -> str:
    """Everything looked for, in a line each: on how many, or why not."""
    marks = {"found": ("bad", "found"), "none": ("good", "not there"), "few": ("warn", "too few to say"),
             "unchecked": ("warn", "not checked")}  # fmt: skip
    rows = "".join(
        f'<tr><td class="name">{t(c.what)}</td><td class="state {marks[c.state][0]}">{marks[c.state][1]}</td>'
        f'<td class="told">{t(c.text.removeprefix("not checked: "))}</td></tr>'
        for c in audit_words.checks(found)
    )
    return (
        "<section><h2>What was checked, and on how many</h2>"
        f'<div class="wide"><table><thead><tr><th>looked for</th><th>result</th><th>on</th></tr></thead><tbody>{rows}</tbody>'
        "</table></div></section>"
    )


def _corpus(name: str, found: Mapping[str, Any]) -> str:
    """Plot of the worst nuisance by method, and the table of all."""
    short = [s for s in found["shortcuts"] if s["corpus"] == name]
    kinds = list(dict.fromkeys(s["nuisance"] for s in short))
    methods = sorted({s["method"] for s in short} - {"all"}) + (
        ["all"] if any(s["method"] == "all" for s in short) else []
    )
    at = {(s["nuisance"], s["method"]): s for s in short}
    plotted = [k for k in kinds if k != "together"] or kinds
    rows = []
    for kind in kinds:
        cells = [f'<td class="name">{t(means(kind))}<br><code>{t(kind)}</code></td>']
        for method in methods:
            one = at.get((kind, method))
            cells.append(
                f'<td class="n{" red" if one["finding"] else ""}">{one["auc"]:.3f}<br><span class="soft">'
                f"{one['low']:.2f}–{one['high']:.2f}</span></td>"
                if one
                else '<td class="n">–</td>'
            )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    most = {m: max((s for s in short if s["method"] == m), key=lambda s: s["fakes"]) for m in methods}
    heads = "".join(
        f'<th class="n">{t(m)}<br><span class="soft">{most[m]["fakes"]:,} fakes, {most[m]["reals"]:,} reals</span></th>'
        for m in methods
    )
    return (
        f"<section><h2>{t(name)}: how often one number alone picks the fake</h2>"
        f"<p>Each line is one way of making fakes. At 0.5 the number is of no use; at 1.0 it always picks the fake. "
        f"Red: above {found['allow']:g}, and not by luck. Small: the 95 % interval.</p>"
        f'<figure><figcaption>{t(means(plotted[0]))}</figcaption><div class="wide">'
        f"{_plot([at[plotted[0], m] for m in methods if (plotted[0], m) in at][-METHODS:])}</div></figure>"
        f'<div class="wide"><table><thead><tr><th class="name">number (AUC)</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _plot(short: Sequence[Mapping[str, Any]]) -> str:
    """A dot and its interval for each method, from 0.4 to 1."""
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
        y, kind = 16 + k * line, "bad" if one["finding"] else "ok"
        name = "all fakes" if one["method"] == "all" else one["method"]
        name = name if len(name) <= 26 else f"{name[:25]}…"
        parts.append(
            f'<text x="{left - 14}" y="{y + 4}" text-anchor="end">{t(name)}</text>'
            f'<line class="{kind}" stroke-width="3" x1="{x(one["low"]):.1f}" x2="{x(one["high"]):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle class="{kind}" cx="{x(one["auc"]):.1f}" cy="{y}" r="5"/>'
            f'<text x="{right + 14}" y="{y + 4}">{one["auc"]:.3f}</text>'
        )
    return f'<svg class="plot" viewBox="0 0 760 {height}" role="img" aria-label="AUC by method">{"".join(parts)}</svg>'


def _leaks(found: Mapping[str, Any]) -> str:
    if not found["leaks"]:
        return ""
    items = []
    for leak in found["leaks"]:
        early, late = leak["splits"]
        shown = "".join(
            f"<li><bdi><code>{t(e['what'])}</code></bdi> "
            f'<span class="soft">{t(early)}: {t(e[early])}, {t(late)}: {t(e[late])}</span></li>'
            for e in leak["examples"]
        )
        items.append(f"<details open><summary><b>{t(leak['text'])}</b></summary><ul>{shown}</ul></details>")
    return (
        "<section><h2>Shared between parts</h2><p>Take these clips out of one side, or split anew by person.</p>"
        f"{''.join(items)}</section>"
    )


def _faults(kinds: Sequence[Mapping[str, Any]]) -> str:
    if not kinds:
        return ""
    items = [
        f"<details><summary><b>{k['count']:,} {t(k['kind'].replace('_', ' '))}</b></summary><ul>"
        + "".join(f"<li><bdi><code>{t(e['id'])}</code></bdi><br>{t(e['text'])}</li>" for e in k["examples"])
        + "</ul></details>"
        for k in kinds
    ]
    return f"<section><h2>Faults of the corpus</h2>{''.join(items)}</section>"


def _soft_labels(soft: Mapping[str, Any] | None) -> str:
    """A histogram of soft labels for each method, all of one height."""
    if not soft or not any(sum(count) for count in soft["methods"].values()):
        return ""
    parts = []
    for name, count in soft["methods"].items():
        most, wide = max(count) or 1, 240 / len(count)
        high = [56 * n / most for n in count]
        bars = "".join(
            f'<rect class="ok" x="{k * wide:.1f}" y="{60 - y:.1f}" width="{wide - 1:.1f}" height="{y:.1f}"/>'
            for k, y in enumerate(high)
        )
        parts.append(
            f'<tr><td class="name">{t(name)}</td><td><svg class="hist" viewBox="0 0 240 62" role="img" '
            f'aria-label="soft labels from 0 to 1">{bars}<line class="g" x1="0" x2="240" y1="60.5" y2="60.5"/></svg></td>'
            f'<td class="n">{sum(count):,}</td></tr>'
        )
    return (
        "<section><h2>Soft labels: how well lips and voice agree</h2><p>From 0 (left) to 1 (right), in every frame with a face "
        "and a voice, by how the clip was made. Fakes that replace lips or voice should lie further left than real clips.</p>"
        f'<div class="wide"><table><thead><tr><th>method</th><th>0 to 1</th><th class="n">frames</th></tr></thead>'
        f"<tbody>{''.join(parts)}</tbody></table></div></section>"
    )


def _balance(counts: Mapping[str, Mapping[str, int]]) -> str:
    """How many clips of each kind, as bars."""
    parts = []
    for name in ("split_label", "method", "category"):
        some = {k: v for k, v in counts[name].items() if k}
        if not some:
            continue
        most = max(some.values())
        rows = "".join(
            f'<tr><td class="name">{t(k)}</td><td style="width:50%"><div class="bar" aria-hidden="true">'
            f'<i style="width:{100 * v / most:.1f}%"></i></div></td><td class="n">{v:,}</td></tr>'
            for k, v in some.items()
        )
        title = {"split_label": "part and label"}.get(name, name)
        parts.append(f'<div class="wide"><table><thead><tr><th>{title}</th><th></th><th class="n">rows</th></tr></thead>'
                     f"<tbody>{rows}</tbody></table></div>")  # fmt: skip
    return f"<section><h2>What the corpus holds</h2>{''.join(parts)}</section>" if parts else ""
