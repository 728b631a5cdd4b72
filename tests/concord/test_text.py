"""Foreign text in other formats: a command there becomes something that is shown, and nothing else changes."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from concord import text
from student.run import card
from student.run.state import Facts
from student.scoring import tables
from student.scoring.metrics import Figures
from student.scoring.report import Coverage, Line, Report, Variant

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "a\r\nb\x85c\u2028d",
    "\u202egpj.exe",
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "]]></p>&lt;&#60;",
    "`x` ``y",
    "[l](http://evil/) ![i](x)",
    "http://evil/ www.evil.com",
    "| a | b |",
    "*a* _b_ __c__ ~~d~~ ***",
    "$\\frac{$ $$",
    "\\",
    "u\udcff\ud800",
    "# x",
    "[/red] [bold]",
)
anything = st.text(st.characters(exclude_categories=[]), max_size=30) | st.sampled_from(HOSTILE)
letters = st.text("ab_ *`[]()<>&|\\$~!#-.:/w\n\r\t", max_size=24) | st.sampled_from(HOSTILE)


class Outline(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))

    def handle_data(self, data):
        self.text += data


@given(anything)
def test_a_terminal_gets_one_line_that_can_be_printed(value):
    shown = text.plain(value)
    assert shown.isprintable()
    assert text.plain(shown) == shown
    shown.encode()


def test_plain_text_stays():
    for value in ("é ü 漢字 🎬 a-b_c.mp4", "", "x\\n"):
        assert text.plain(value) == value
    assert text.plain_all({"\x1b": ["\r", ("\x07", 1)], "n": None}) == {"\\x1b": ["\\r", ["\\x07", 1]], "n": None}


@given(anything)
def test_a_page_gets_text_in_elements_and_attributes(value):
    page = Outline(f'<p title="{text.html(value)}">{text.html(value)}</p>')
    ((tag, ((name, attribute),)),) = page.tags
    assert (tag, name) == ("p", "title")
    assert attribute == page.text
    assert page.text.replace("\n", "").isprintable() or re.search(r"[\u2028\u2029\ue000-\uffff]|\s|.", page.text)
    page.text.encode()


@settings(deadline=None)
@given(letters)
def test_markdown_shows_it_as_text_in_lines_and_tables(value):
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for way in (text.markdown, text.code):
        shown = way(value)
        for source in (f"Of {shown} clips.", f"- x: {shown}, y", f"| a | b |\n|---|---|\n| {shown} | x |"):
            page = Outline(reader.render(source))
            assert {tag for tag, _ in page.tags} <= {"p", "ul", "li", "code", *("table thead tbody tr th td".split())}
            assert sum(tag == "td" for tag, _ in page.tags) in (0, 2)
            found = "".join(page.text.split()).removesuffix("x" if "table" in str(page.tags) else "")
            assert "".join(text.plain(value).split()) in found


def test_markdown_makes_no_link_of_an_address_and_leaves_names_readable():
    assert "://" not in text.markdown("see http://evil/")
    assert "www." not in text.markdown("see www.evil.com")
    assert text.markdown("wav2lip_v2 95.5 % (1-2)") == "wav2lip_v2 95.5 % (1-2)"
    assert text.code("folder:grid_s1") == "`folder:grid_s1`"


@given(letters)
def test_pictures_make_no_formula_of_it(value):
    from matplotlib import cbook

    shown = text.label(value)
    assert not cbook.is_math_text(shown)
    assert not shown.startswith("_")


class HostileStore:
    """What a model card reads of a store, with a name that means harm in every place."""

    def __init__(self, name):
        self.path = f"/stores/{name}"
        self.clips = {
            "label": np.array([0, 1]),
            **{column: np.array([name, name], object) for column in ("group", "method", "corpus")},
        }
        self.attrs = {"teachers": {name: {"name": name, "licence": name, "sha256": name}}}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_model_card_and_an_evaluation_hold_no_mark_of_a_name(name):
    losses = SimpleNamespace(preset=name, w_detection=1, w_correlation=1, w_contrastive=0, w_projection=0)
    data = SimpleNamespace(picture=name, trim=name, pair_share=0.5, pseudo_share=0.25)  # a config would refuse these
    config = SimpleNamespace(
        model=name, splits=name, data=data, losses=losses, epochs=1, seed=0, needs_projections=True, keep="best"
    )
    facts = Facts(window=50, too_short=0, validation_by="file", parameters=1)
    run = card.Run(HostileStore(name), {"train": np.arange(2)}, config, facts, None)
    calm = card.text(replace(run, reader=HostileStore("x y"), config=SimpleNamespace(**{**vars(config), "model": "m"})))
    line = Line(Figures(1, 1, *[0.5] * 6), np.nan, np.nan, name)
    variant = Variant("none", "all", Coverage(1, 1, 0, 1), {name: {"student": line, "trivial": line}})
    table = tables.markdown(Report(name, name, "test", 0, False, 0.0, 1.0, "x", {}, [variant], []))
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    assert table.endswith(f"\n{tables.MARK}\n")
    table = table.removesuffix(f"{tables.MARK}\n")
    front, _, text = card.text(run).partition("\n---\n")
    assert front == card.text(replace(run, reader=HostileStore("x y"))).partition("\n---\n")[0]  # has no name of theirs
    for source in (text, table):
        assert all(line.isprintable() for line in source.split("\n"))
        assert not re.search(r"<(?!br)[a-z/!]", source)
        tags = {tag for tag, _ in Outline(reader.render(source)).tags}
        assert tags <= {"h1", "h2", "p", "ul", "li", "code", *("table thead tbody tr th td".split())}
    assert calm.count("\n") == card.text(run).count("\n")
