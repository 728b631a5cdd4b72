"""Commands are named as the user calls them."""

import logging
import sys

import pytest
from click.testing import CliRunner

from concord import ConcordError, commands
from concord.command import _Formatter, fail, say, say_lines
from concord.commands import as_called


@pytest.fixture(autouse=True)
def asked_anew():
    commands.by_name.cache_clear()
    yield
    commands.by_name.cache_clear()


@pytest.fixture
def by_name(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/local/bin/concord", "inspect"])


TEXTS = [
    (
        "the store has no fit; precompute.py --refit learns one",
        "the store has no fit; concord precompute --refit learns one",
    ),
    ("run python precompute.py --store /a/b.zarr", "run concord precompute --store /a/b.zarr"),
    ("`python -m student.predict VIDEO`", "`concord predict VIDEO`"),
    ("python -m store.export s.zarr, python -m store.serve", "concord export-store s.zarr, concord serve"),
    ("accelerate launch student/train.py --store s", "accelerate launch -m student.train --store s"),
    ("python student/train.py --store s", "concord train --store s"),
    ("/d does not exist; precompute.py makes a store", "/d does not exist; concord precompute makes a store"),
    ("run precompute.py.", "run concord precompute."),
    ("so run  precompute.py on the store", "so run  concord precompute on the store"),
    ("videos to answer, as for precompute.py.", "videos to answer, as for concord precompute."),
    ("precompute.py and predict take it", "concord precompute and predict take it"),
]


@pytest.mark.parametrize(("text", "shown"), TEXTS)
def test_who_typed_concord_reads_concord(text, shown, by_name):
    assert as_called(text) == shown


@pytest.mark.parametrize(("text", "_"), TEXTS)
def test_in_a_checkout_texts_stay(text, _, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["precompute.py"])
    assert as_called(text) == text


NAMES = [
    "precompute.py.mp4",
    "/x/precompute.py/y",
    "my-precompute.py",
    "precompute.py",
    "grid:precompute.py",
    "python precompute.py.mp4",
    "python -m store.inspect.mp4",
    "python -m store.inspect/1.mp4",
    "x/python -m store.inspect",
    "python student/train.py.bak",
]


@pytest.mark.parametrize(
    "text",
    [
        *NAMES,
        "/data/precompute.py is a file",
        "my-precompute.py --x",
        "run precompute.py.mp4",
        "Error: precompute.py: No such file or directory",
        "Path 'precompute.py' does not exist; 'precompute.py --x' neither",
        "--out x holds precompute.py, which is not of this command",
        "x is not empty (precompute.py ...)",
        "python -m pipelines.demo",
        "python -m pytest test_my.py",
    ],
)
def test_names_of_files_and_commands_without_a_name_stay(text, by_name):
    assert as_called(text) == text


@pytest.mark.parametrize("name", NAMES)
def test_lines_keep_names(name, by_name, capsys):
    told = f"{name}: damaged; run precompute.py again"
    shown = f"{name}: damaged; run concord precompute again"
    say(told)
    say_lines(f"{told}\n{told}")
    with pytest.raises(SystemExit):
        fail(told, 1)
    out = capsys.readouterr()
    assert (out.out, out.err) == (f"{shown}\n" * 3, f"{shown}\n")


def shown_log(text, *given):
    """The line of a log."""
    return _Formatter("%(message)s").format(logging.LogRecord("x", logging.WARNING, "", 0, text, given, None))


@pytest.mark.parametrize("name", [*NAMES, "run precompute.py", "python -m store.inspect"])
def test_logs_translate_their_own_words_alone(name, by_name):
    assert shown_log("%s is damaged; run precompute.py", name) == f"{name} is damaged; run concord precompute"
    assert shown_log("%(name)s 1 %%", {"name": name}) == f"{name} 1 %"
    assert shown_log("100 %") == "100 %"


def test_logs_translate_errors_of_ours(by_name):
    error = ConcordError("the ledger is lost; run precompute.py again")
    assert shown_log("%d: %s", 3, error) == "3: the ledger is lost; run concord precompute again"
    assert shown_log(error) == "the ledger is lost; run concord precompute again"
    assert shown_log("%s", ValueError("run precompute.py")) == "run precompute.py"


def test_concord_as_a_module_counts(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/site-packages/concord/__main__.py"])
    assert commands.by_name()


@pytest.mark.parametrize(
    ("typed", "says"), [("predit", "did you mean predict?"), ("xyz", "the commands are precompute")]
)
def test_a_misspelt_command_names_the_near_one(typed, says):
    from concord.__main__ import main

    found = CliRunner().invoke(main, [typed])
    assert found.exit_code == 2
    assert says in found.output


def test_pages_name_commands_as_the_user_calls_them(by_name, monkeypatch):
    from concord.pages import environment as pages

    pages.environment.cache_clear()
    try:
        template = pages.environment().from_string('<a href="{{ told }}">{{ told }}</a> {{ told | called }}')
        told = "python -m pipelines.default_fit"
        assert template.render(told=told) == f'<a href="{told}">{told}</a> concord default-fit'
        assert template.render(told="run precompute.py <x>").endswith("</a> run concord precompute &lt;x&gt;")
        assert "concord audit --store STORE" in pages.source("store.serve/audit.html.j2")
    finally:
        pages.environment.cache_clear()


def test_lines_that_rich_prints_are_translated_too(by_name):
    from store.inspect import _verdict
    from student.scoring.tables import unaudited

    assert _verdict([], False).endswith("run concord precompute on it once more")
    name = "python -m store.inspect"
    assert unaudited(name) == f"No trivial baselines: run concord audit --store {name} first."
