"""Tracebacks of unexpected errors, in `errors.jsonl` beside the ledger, for those who fix the program.

The ledger has one sentence for each clip. That is enough for a bad file; for an error of the program itself, or a
crash, the traceback is needed too. One JSON object per line: `error` (the last line of the traceback), `stage`,
`traceback`, `clips` (the first ids), `times` and `last` (UTC). Equal tracebacks are kept once. Only the driver writes
the file, always completely; it holds the last MOST, and no part of the program depends on it.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from concord import plain_json
from concord.secrets import redact
from pipelines.workers.work import shortened
from store.layout import StoreError
from store.place import Place

log = logging.getLogger(__name__)

FILE = "errors.jsonl"
MOST = 100  # different tracebacks
LINE = 500  # characters of the line that names the error
CLIPS = 20  # ids kept for each
BYTES = 8 << 20  # largest file that is read; the project's own are smaller


@dataclass(frozen=True)
class Trace:
    """One traceback: the clip's id (empty if it belongs to the run itself), the stage, the text."""

    clip: str
    stage: str
    text: str


def add(root: Place, found: Iterable[Trace]) -> int:
    """Add these to the file; returns the number of different ones in it. A full disk, or an unreachable bucket, does
    not end the run here: it is noticed elsewhere."""
    new = [trace for trace in found if trace.text]
    if not new:
        return 0
    kept = read(root)
    for trace in new:
        text = shortened(redact(trace.text))
        log.debug("%s of %s:\n%s", trace.stage, trace.clip or "the run", text)
        one = kept.pop((trace.stage, _same(text)), None) or {
            "error": (text.strip().splitlines() or [""])[-1][:LINE],
            "stage": trace.stage,
            "times": 0,
            "clips": [],
            "traceback": text,
        }
        one["times"] += 1
        one["last"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if trace.clip and trace.clip not in one["clips"] and len(one["clips"]) < CLIPS:
            one["clips"].append(trace.clip)
        kept[trace.stage, _same(text)] = one
    last = list(kept.values())[-MOST:]
    try:
        (root / FILE).write("".join(json.dumps(one) + "\n" for one in last).encode())
    except (OSError, StoreError) as error:
        log.warning("the traceback of an error cannot be kept in %s (%s)", root / FILE, error)
        return 0
    return len(last)


def read(root: Place) -> dict[tuple[str, str], dict[str, Any]]:
    """The contents of the file, by stage and kind of traceback, most recent last; foreign lines are skipped."""
    try:
        opened = (root / FILE).open()
        data = opened.read(0, min(opened.size, BYTES))
    except (OSError, StoreError):
        return {}
    found = {}
    for line in data.decode(errors="replace").splitlines():
        try:
            one = plain_json.parse_dict(line)
            ours = isinstance(one["times"], int) and isinstance(one["clips"], list)
            key = str(one["stage"]), _same(str(one["traceback"]))
        except (ValueError, KeyError):
            continue
        if ours:
            found[key] = one
    return found


def _same(text: str) -> str:
    """A traceback without the parts that differ between clips (message, addresses), but with files, lines and the
    error's name."""
    lines = [line for line in text.splitlines() if line.startswith(" ") or re.match(r"[\w.]+(:|$)", line)]
    return "\n".join(
        re.sub(r"0x[0-9a-f]+", "", line if line.startswith(" ") else line.partition(":")[0]) for line in lines
    )
