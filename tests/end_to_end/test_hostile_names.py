"""Clips with names that mean harm, through the commands: what reaches terminals, tables and pages is only shown."""

import json
import os
import shutil
import unicodedata
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner
from small_store import make_store
from test_table import NAMES

import concord.text
import store
from pipelines.audit import __main__ as audit
from pipelines.corpora import manifest
from pipelines.manifest import __main__ as manifest_command
from store import inspect
from store.formats import table
from student import evaluate
from student.scoring import plots
from student.scoring.metrics import Figures
from student.scoring.report import Coverage, Line, Report, TrialScores, Variant

FILES = (
    b"\x1b[2J\x1b]0;owned\x07.mp4",
    b"=cmd|' C calc'!A0.mp4",
    b"<img src=x onerror=alert(1)>.mp4",
    b"\"'></title><script>alert(1)</script>.mp4".replace(b"/", b"\\"),
    b"a\r\nb.mp4",
    b"u\xff\xfe.mp4",
    b"-rf.mp4",
    "\u202egpj.mp4".encode(),
    "\x9b31m.mp4".encode(),
    b"`md` [l](x) |a|.mp4",
    b" lead.mp4",
    b"$\\frac{.mp4",
    b"_[red]_[[.mp4",
)


def steering(text):
    """Characters that do something rather than show something."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c != "\n"}


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.open = set(), set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def said(main, *words, code=(0, 3)):
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code in code, done.output
    assert not steering(done.stdout + done.stderr), ascii(done.output)
    return done.stdout


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A folder of files that are not videos, half of them fakes of a method called =m|x."""
    root = os.fsencode(tmp_path_factory.mktemp("names") / "set")
    for folder in (b"real", b"fake/=m|x"):
        os.makedirs(root + b"/" + folder)
    for k, name in enumerate(FILES):
        with open(root + (b"/real/", b"/fake/=m|x/")[k % 2] + name, "wb") as file:
            file.write(b"no video")
    return os.fsdecode(root)


def test_manifests_of_hostile_names(corpus, tmp_path):
    rows, again = tmp_path / "rows.csv", tmp_path / "again.csv"
    said(manifest_command.main, "--corpus", f"folder:{corpus}", "-o", rows, "--picture", tmp_path / "p.svg")
    said(manifest_command.main, "--manifest", rows, "--validate")
    said(manifest_command.main, "--manifest", rows, "-o", again)
    assert rows.read_bytes() == again.read_bytes()
    assert manifest.load(f"csv:{rows}") == manifest.load(f"folder:{corpus}")
    parquet = tmp_path / "rows.parquet"
    said(manifest_command.main, "--manifest", rows, "-o", parquet)
    assert manifest.load(f"csv:{parquet}") == manifest.load(f"csv:{rows}")
    method = table.read_csv(rows.read_bytes())["method"]
    assert set(method) == {"", "=m|x"}
    assert b",=m|x," not in rows.read_bytes()
    assert not steering((tmp_path / "p.svg").read_text())


def test_audits_of_hostile_names(corpus, tmp_path):
    page, found = tmp_path / "a.html", tmp_path / "a.json"
    text = said(audit.main, "--corpus", f"folder:{corpus}", "--html", page, "--json", found)
    assert "=m|x" in text or "fake" in text
    assert not {"script", "img", "iframe", "object", "link", "a"} & Page(page.read_text()).tags
    assert not {name for name in Page(page.read_text()).attributes if name.startswith("on") or name in ("src", "href")}
    assert not steering(page.read_text())
    assert json.loads(found.read_text())["rows"] == len(FILES)
    assert found.read_text().isascii()
    said(audit.main, "--corpus", f"folder:{corpus}", "--json", "-")


@pytest.fixture(scope="module")
def hostile_store(tmp_path_factory):
    """A store with such names in every column of text, and one in its attributes."""
    root = tmp_path_factory.mktemp("names") / "s.zarr"
    make_store(root, {"train": len(NAMES)}, frames=(30, 31), fakes=2)
    writer = store.Writer.open(root)
    columns = dict.fromkeys(("id", "path", "method", "corpus", "category", "group"), NAMES)
    writer.write_clips(0, columns)
    harm = "\x1b[2J\u202e[/red]<img src=x>\r\n"
    writer.update_attrs({"teachers": {**writer.attrs["teachers"], "asr": {"name": harm, harm: harm, "dim": 8}}})
    return root


def test_inspecting_a_store_of_hostile_names(hostile_store, tmp_path):
    text = said(inspect.main, hostile_store)
    assert "\\x1b[2J\\u202e[/red]<img src=x>\\r\\n" in text
    said(inspect.main, hostile_store, "--json")
    damaged = shutil.copytree(hostile_store, tmp_path / "s.zarr")
    shard = next(path for path in damaged.glob("frames/audio/c/**/0") if path.is_file())
    shard.write_bytes(shard.read_bytes()[:-3])
    assert "damaged: clip" in said(inspect.main, damaged, "--verify", code=(1,))


def test_auditing_a_store_of_hostile_names(hostile_store, tmp_path):
    said(audit.main, "--store", hostile_store, "--html", tmp_path / "a.html")
    assert not steering((tmp_path / "a.html").read_text())


def report(name):
    """An evaluation of a method of that name."""
    line = Line(Figures(1, 1, *[0.5] * 6), np.nan, np.nan, name)
    variant = Variant("none", "all", Coverage(1, 1, 0, 1), {name: {"student": line, "trivial": line}})
    scores = {"student": 0.5, "teacher": 0.5}
    trials = [
        TrialScores(f"{name}{y}", y, name if y else "", made=False, frames=50, weight=1.0, offset=0, scores=scores)
        for y in (0, 1)
    ]
    return Report(f"/s/{name}", name, "test", 0, False, 0.0, 1.0, "x", {}, [variant], trials)


@pytest.mark.parametrize("name", ["\x1b[2J", "[/red]", "[red]x", "$\\frac{$", "_hidden_", "a\r\nb", "\u202e"])
def test_evaluations_of_hostile_methods(name, capsys, tmp_path):
    evaluate.show(report(name))
    shown = capsys.readouterr().out
    assert not steering(shown)
    assert concord.text.plain(name) in shown
    plots.sheet(report(name), tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000
