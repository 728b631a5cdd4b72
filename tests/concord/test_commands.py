"""Commands are named as the user calls them."""

import sys

import pytest
from click.testing import CliRunner

from concord import commands
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
]


@pytest.mark.parametrize(("text", "shown"), TEXTS)
def test_who_typed_concord_reads_concord(text, shown, by_name):
    assert as_called(text) == shown


@pytest.mark.parametrize(("text", "_"), TEXTS)
def test_in_a_checkout_texts_stay(text, _, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["precompute.py"])
    assert as_called(text) == text


@pytest.mark.parametrize(
    "text",
    ["/data/precompute.py is a file", "my-precompute.py", "python -m pipelines.demo", "python -m pytest test_my.py"],
)
def test_other_files_and_commands_without_a_name_stay(text, by_name):
    assert as_called(text) == text


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
        shown = pages.environment().from_string("{{ told }}").render(told="python -m pipelines.default_fit")
        assert shown == "concord default-fit"
        assert "concord audit --store STORE" in pages.source("store.serve/audit.html.j2")
    finally:
        pages.environment.cache_clear()
