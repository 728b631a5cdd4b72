"""The option --audio-track of commands that read media."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from pipelines.hearing.tracks import AUTO
from pipelines.media.files import MAX_STREAMS


class AudioTrack(click.ParamType):
    """Number of a sound track, counted from 1; AUTO for "auto"."""

    name = "auto|n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, int):
            return value
        if value == "auto":
            return AUTO
        if not value.isascii() or not value.isdigit() or not 1 <= int(value[:9]) <= MAX_STREAMS:
            self.fail(f'"{value}" is neither auto nor the number of a sound track, counted from 1', param, ctx)
        return int(value)


def audio_track(default: str = "auto") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option; the command gets `audio_track`, None if it was left out. `default` says in the help what that means."""
    return click.option(
        "--audio-track",
        type=AudioTrack(),
        help="Of several sound tracks the one of number N, counted from 1 as in players; auto: the one with the voice, "
        f"no dub and no comment.  [default: {default}]",
    )
