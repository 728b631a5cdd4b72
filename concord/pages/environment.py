"""Templates of pages: Jinja2 with autoescape, in one environment, with filters for counts and times.

A template is in the folder `templates` of its page's package and is named PACKAGE/FILE, such as
`pipelines.audit/audit.html.j2`. Output of templates is escaped by `concord.text.html`, so that hostile file names and
messages are only displayed. Templates name commands as the user calls them; values stay as they are, but for sentences of
ours, which the filter `called` translates. SVG drawings are made by code that escapes and returns `Markup`. `style.css` here
is the look of all pages, in light and dark mode.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from concord import text
from concord.commands import as_called


@cache
def environment() -> Environment:
    """The environment of all pages. An undefined name in a template is an error."""
    made = Environment(
        loader=FunctionLoader(source),
        autoescape=True,
        finalize=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"count": text.counted, "number": as_number, "hours": as_hours, "span": as_span, "when": as_when}
    made.filters["called"] = as_called
    return made


def escaped(value: object) -> Markup:
    """A template's output, escaped by `concord.text.html`. Jinja's own escaping keeps characters that change the writing
    direction, and control characters."""
    return value if isinstance(value, Markup) else Markup(text.html(value))


def source(name: str) -> str:
    """The text of a template, commands as the user calls them, or of `concord.pages/style.css`."""
    package, _, file = name.rpartition("/")
    return as_called(resources.files(package).joinpath("templates", file).read_text(encoding="utf-8"))


def as_number(value: float | None, digits: int) -> str:
    """A number with that many decimals; a dash if it is unknown."""
    return "–" if value is None or value != value else f"{value:,.{digits}f}"


def as_hours(hours: float) -> str:
    """12.5 h; below one hour as `as_span`."""
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
