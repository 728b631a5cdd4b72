"""A command with many options: its help shows them under headings, each with one spelling."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import click

from concord.command import Command

OTHER = "Other"
WIDTH = 110  # columns of the help, where the terminal has them


class Sectioned(Command):
    """`sections` has the names of parameters by heading; all others come last, under OTHER."""

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        kwargs.setdefault("context_settings", {}).setdefault("max_content_width", WIDTH)
        super().__init__(*args, **kwargs)
        known = {param.name for param in self.params}
        if unknown := [name for names in sections.values() for name in names if name not in known]:
            raise ValueError(f"{self.name} has no parameter {unknown[0]}")
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        params = {param.name: param for param in self.get_params(ctx)}
        for heading, names in self.sections.items():
            _write(ctx, formatter, heading, [params.pop(name) for name in names])
        _write(ctx, formatter, OTHER, list(params.values()))


def _write(ctx: click.Context, formatter: click.HelpFormatter, heading: str, params: Sequence[click.Parameter]) -> None:
    records = [_once(param).get_help_record(ctx) for param in params]
    if rows := [record for record in records if record]:
        with formatter.section(heading):
            formatter.write_dl(rows)


def _once(param: click.Parameter) -> click.Parameter:
    """The same without spellings that only have "_" in place of "-"."""
    dashed = [name for name in param.opts if "_" not in name]
    if not dashed or len(dashed) == len(param.opts):
        return param
    one = copy.copy(param)
    one.opts = dashed
    return one
