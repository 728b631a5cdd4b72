"""What pages are made of: one style, sections, tables, numbers and times as text; who puts text in escapes it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from concord.text import html as t

STYLE = """
:root{color-scheme:light dark;--page:#f7f7f5;--card:#fff;--ink:#1d2126;--soft:#5f6873;--line:#e2e3e0;--fill:#2f6db3;
--rest:#dfe4ea;--good:#2c7a4b;--warn:#b26a00;--bad:#b3372f;--p0:#9aa5b1;--p1:#6b9bd1;--p2:#2f6db3;--p3:#8a63b8;--p4:#c07bb0;
--p5:#4a9c8c;--p6:#cfd4d9}
@media(prefers-color-scheme:dark){:root{--page:#15181c;--card:#1e2227;--ink:#e6e8ea;--soft:#9aa4af;--line:#30363d;
--fill:#6ea8e6;--rest:#353c45;--good:#5fbf86;--warn:#e0a346;--bad:#ec7c72;--p0:#6b7683;--p1:#8fb8e8;--p2:#5b95d6;--p3:#a988d3;
--p4:#d39ac6;--p5:#6fbfae;--p6:#434b55}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:58rem;margin:0 auto;padding:1.5rem 1rem 3rem}
header{margin-bottom:1.25rem;border-left:.35rem solid var(--tone);padding-left:1rem}
.good{--tone:var(--good)}.warn{--tone:var(--warn)}.bad{--tone:var(--bad)}.plain{--tone:var(--fill)}
h1{font-size:1.65rem;line-height:1.2;margin:.1rem 0 .4rem}
h2{font-size:1.05rem;margin:0 0 .6rem}
p{margin:.3rem 0}
.kicker,.soft,th,dt,figcaption{color:var(--soft)}
.kicker,.soft,table,dl,figcaption{font-size:.875rem}
section{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:1rem 1.1rem;margin:0 0 1rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.75rem;margin:0 0 1rem}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.7rem .9rem}
.tiles b{display:block;font-size:1.35rem;font-weight:600;line-height:1.25;font-variant-numeric:tabular-nums}
.tiles span{color:var(--soft);font-size:.8rem}
.bar{display:flex;height:.8rem;border-radius:.4rem;overflow:hidden;background:var(--rest);gap:1px}
.bar i{display:block;background:var(--fill);min-width:2px}
.key{display:flex;flex-wrap:wrap;gap:.2rem 1rem;padding:0;margin:.5rem 0 0;list-style:none;font-size:.875rem}
.key i{display:inline-block;width:.7rem;height:.7rem;border-radius:.2rem;margin-right:.35rem}
.stage{margin:.9rem 0 0}
.stage .head{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 1rem;margin-bottom:.25rem}
figure{margin:1.1rem 0 0}
.row{display:grid;grid-template-columns:8.5rem 1fr;gap:.2rem .75rem;align-items:center;margin-top:.4rem}
.row svg{display:block;width:100%;height:2.2rem;background:var(--page);border-radius:.25rem}
.row.tall svg{height:5rem}
.row path{fill:var(--fill)}
.row.dim path{fill:var(--p0)}
.axis{display:flex;justify-content:space-between;margin-left:9.25rem}
.wide{overflow-x:auto;margin:0 -.2rem;padding:0 .2rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;vertical-align:top;padding:.3rem .75rem .3rem 0;border-top:1px solid var(--line)}
th{font-weight:500;border-top:0;white-space:nowrap}
td.n,th.n{text-align:right;white-space:nowrap}
td.name{min-width:11rem;overflow-wrap:anywhere}
tr.sum td{font-weight:600}
code,kbd{font:.84em ui-monospace,SFMono-Regular,Consolas,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere;
background:color-mix(in srgb,var(--rest) 45%,transparent);padding:.1em .3em;border-radius:.25em}
details{margin:.5rem 0;border-top:1px solid var(--line);padding-top:.5rem}
summary{cursor:pointer}
summary b{font-weight:600}
details li{margin:.35rem 0;overflow-wrap:anywhere}
details ul{margin:.4rem 0 0;padding-left:1.1rem;font-size:.875rem}
dl{display:grid;grid-template-columns:minmax(6rem,max-content) 1fr;gap:.3rem 1rem;margin:0}
dd{margin:0;overflow-wrap:anywhere}
@media(max-width:34rem){.row{grid-template-columns:1fr}.axis{margin-left:0}h1{font-size:1.35rem}dl{grid-template-columns:1fr}
dd{margin-bottom:.5rem}}
"""


def as_section(title: str, body: str) -> str:
    return f"<section><h2>{t(title)}</h2>{body}</section>"


def as_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[int], bold: Collection[str] = ()
) -> str:
    """A table of HTML cells; columns in `numbers` are set to the right, rows whose first cell is in `bold` are bold."""
    kind = ["n" if k in numbers else "name" for k in range(len(heads))]
    head = "".join(f'<th class="{c}">{t(h)}</th>' for c, h in zip(kind, heads, strict=True))
    body = []
    for row in rows:
        cells = "".join(f'<td class="{c}">{cell}</td>' for c, cell in zip(kind, row, strict=True))
        body.append(f'<tr class="sum">{cells}</tr>' if row[0] in bold else f"<tr>{cells}</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def as_count(n: float, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def as_number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def as_hours(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else as_span(hours * 3600)


def as_span(seconds: float) -> str:
    """44 s, 3 min 5 s, 2 h 14 min, 3 d 4 h."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    whole = round(seconds)
    k = next(k for k, (_, size) in enumerate(units) if whole >= size)
    (big, size), (small, part) = units[k], units[k + 1]
    rest = whole % size // part
    return f"{whole // size} {big}" + (f" {rest} {small}" if rest else "")


def as_when(iso: str) -> str:
    """2026-06-01 12:30 UTC."""
    return f"{iso[:16].replace('T', ' ')} UTC"
