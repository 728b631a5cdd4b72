"""Templates: what they print is escaped as `concord.text.html` escapes, and every name that they use is given."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markupsafe import Markup

import concord.text
from concord.pages import environment as pages

ROOT = Path(__file__).parents[2]
TEMPLATES = sorted(ROOT.glob("*/*/templates/*"))
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "\"'></title><script>alert(1)</script>",
    "\u202egpj.exe",
    "\x1b[2J\x00",
    "&lt;&#60;",
    "{{ 7 * 7 }}{% endif %}{# #}",
    "u\udcff\ud800",
)
SOURCE = """{% macro cell(x) %}<td title="{{ x }}">{{ x }}</td>{% endmacro %}
{% set kept = name %}{% set caught %}<b>{{ name }}</b>{% endset %}
<p class="{{ name }}">{{ name }} {{ kept }} {{ caught }} {{ cell(name) }}
{{ [name, name] | join(", ") }} {{ name | upper }}</p>"""


class Outline(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@given(st.text(st.characters(exclude_categories=[]), max_size=30) | st.sampled_from(HOSTILE))
def test_a_name_is_only_shown_wherever_a_template_prints_it(name):
    shown = pages.environment().from_string(SOURCE).render(name=name)
    page = Outline(shown)
    assert page.tags == ["p", "b", "td"]
    assert [key for key, _ in page.attributes] == ["class", "title"]
    assert all(c.isprintable() or c in " \n" or not c.isascii() for c in shown)
    assert "\u202e" not in shown
    assert concord.text.html(name) in shown
    shown.encode()


def test_markup_of_our_own_stays_and_a_missing_name_is_an_error():
    template = pages.environment().from_string("{{ drawing }}{{ count }}")
    assert template.render(drawing=Markup("<svg/>"), count=1) == "<svg/>1"
    with pytest.raises(UndefinedError):
        template.render(drawing="")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_goes_round_the_escaping(path):
    """`~` and `safe` make markup of text that is not escaped our way; attributes have quotes; scripts have no place."""
    text = path.read_text()
    served = path.is_relative_to(ROOT / "store" / "serve")  # their scripts are files of the package
    text = re.sub(r'<script (type="module" )?src="/static/\w+\.js"( defer)?></script>', "", text) if served else text
    assert not re.search(r"\|\s*safe|autoescape|<script|\bon\w+=", text)
    assert not re.search(r"[\w\-]=\{\{", text)
    assert not any("~" in inner for inner in re.findall(r"\{[{%].*?[}%]\}", text))
    assert not re.search(r"[.,;:] ?\{% \w+[^%]*%\}$\n\w", text, re.MULTILINE), "a line end after a tag is no space"


def test_every_template_is_in_the_package():
    listed = (ROOT / "setup.cfg").read_text().partition("[options.package_data]")[2].partition("\n[")[0]
    folders = {".".join(path.relative_to(ROOT).parts[:2]) for path in TEMPLATES}
    assert len(folders) == 7
    assert {name for name in folders if f"{name} =\n    templates/*" not in listed} == set()


def test_counts_and_times_are_told_in_words():
    assert (concord.text.counted(1, "clip"), concord.text.counted(2000, "clip")) == ("1 clip", "2,000 clips")
    assert (concord.text.counted(1, "person", "people"), concord.text.counted(0, "person", "people")) == (
        "1 person",
        "0 people",
    )
    assert [pages.as_number(x, 1) for x in (None, float("nan"), 1234.56)] == ["–", "–", "1,234.6"]
    assert [pages.as_span(x) for x in (4.4, 44, 185, 8040, 273600)] == [
        "4.4 s",
        "44 s",
        "3 min 5 s",
        "2 h 14 min",
        "3 d 4 h",
    ]
    assert (pages.as_hours(0.5), pages.as_hours(12.5)) == ("30 min", "12.5 h")
