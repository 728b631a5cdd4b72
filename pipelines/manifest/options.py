"""The options of protocols, for the commands that make splits: `pipelines.manifest` and `precompute.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def shares(_: Any, __: Any, text: str) -> tuple[float, float, float]:
    """--shares as three numbers; some may be 0."""
    try:
        train, val, test = (float(x) for x in text.split(","))
    except ValueError:
        raise click.BadParameter(f'give three numbers for train, val, test, such as 70,10,20, not "{text}"') from None
    if min(train, val, test) < 0 or not 0 < train + val + test < float("inf"):
        raise click.BadParameter("shares must be 0 or more, and at least one must be above 0")
    return train, val, test


def of_protocols(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --shares, --train-on and --leave-out to a command."""
    for option in (
        click.option(
            "--train-on", default="", metavar="CORPUS", help="Corpus, or its kind, for training in cross-corpus."
        ),
        click.option(
            "--leave-out",
            default="0",
            show_default=True,
            metavar="SOURCE|N|none",
            help="Source, or fold N of the sources (0 to 4), for the test in leave-one-source-out; none: no test.",
        ),
        click.option(
            "--shares",
            default="70,10,20",
            show_default=True,
            callback=shares,
            metavar="N,N,N",
            help="Shares of train, val, test in protocols speakers and groups.",
        ),
    ):
        command = option(command)
    return command
