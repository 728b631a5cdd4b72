"""Help with headings: every option once, in one spelling, and both spellings are accepted."""

import re

import click
import pytest
from click.testing import CliRunner

import precompute
from concord.sections import OTHER, Sectioned
from student import train


@pytest.mark.parametrize("command", [train.main, precompute.main], ids=["train", "precompute"])
def test_every_option_stands_in_the_help_once(command):
    text = CliRunner().invoke(command, ["-h"], terminal_width=110).output
    assert [line for line in text.splitlines() if re.fullmatch(r"[A-Z][a-z ,]+:", line)][-1] == f"{OTHER}:"
    for param in command.params:
        dashed = [name for name in param.opts if name.startswith("--") and "_" not in name]
        assert len(re.findall(rf"^  (?:-\w, )?{re.escape(dashed[0])}\b(?!-)", text, re.MULTILINE)) == 1, param.name
    assert not re.findall(r"^ +--\w+_", text, re.MULTILINE)
    other = text[text.index(f"\n{OTHER}:") :]
    assert len(re.findall(r"^  -", other, re.MULTILINE)) <= 4  # what every command has


def test_both_spellings_are_accepted_and_a_heading_names_only_what_there_is():
    @click.command(cls=Sectioned, sections={"Sizes": ["so_many"]})
    @click.option("--so-many", "--so_many", default=1)
    def main(so_many):
        click.echo(so_many)

    assert (
        CliRunner().invoke(main, ["--so_many", "3"]).output
        == CliRunner().invoke(main, ["--so-many", "3"]).output
        == "3\n"
    )
    with pytest.raises(ValueError, match="has no parameter"):
        click.command(cls=Sectioned, sections={"Sizes": ["so_few"]})(lambda: None)
