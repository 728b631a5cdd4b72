"""The log of a run, `metrics.jsonl`: one JSON object per line in the order of steps, also after a resume."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from concord import files, plain_json
from concord.text import counted

log = logging.getLogger(__name__)

LOG_FILE = "metrics.jsonl"


def add_line(file: Path, line: Mapping[str, Any]) -> None:
    """Add a line; values that are not finite become null. Raises OSError, which names the file."""
    try:
        with file.open("a") as opened:
            opened.write(json.dumps(plain_json.cleaned(dict(line))) + "\n")
    except OSError as error:
        raise files.named(error, file) from error


def keep_lines(file: Path, step: int) -> None:
    """Drop the lines of steps after `step`, which will be written again. Lines that are unreadable after a kill or
    damage are dropped with a warning."""
    if not file.is_file():
        return
    kept, lost = [], 0
    for line in file.read_bytes().splitlines():
        try:
            number = plain_json.parse_exact(line)["step"]
            if not isinstance(number, int):
                raise ValueError("no step")
        except (ValueError, KeyError, TypeError):
            lost += bool(line.strip())
            continue
        if number <= step:
            kept.append(line)
    if lost:
        log.warning(
            "%s of %s could not be read and %s dropped", counted(lost, "line"), file, "was" if lost == 1 else "were"
        )
    files.write(file, b"".join(line + b"\n" for line in kept))
