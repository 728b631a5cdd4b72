"""Unexpected values, and JSON documents and bytes that contain them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

Rng = np.random.Generator
DEEP = "[" * 100_000
TEXTS = (
    "",
    "\ud800",
    "../../x",
    "/etc/passwd",
    "=1+1",
    "\x1b[2J",
    "a\0b",
    "%s",
    "x" * 70_000,
    "nan",
    "1e999",
    "\udcff",
    "numcodecs.pickle",
)
NUMBERS = (True, -1, 0, 1.5, 1e308, float("nan"), float("inf"), 2**31, 2**62, 2**64, 10**300, -(2**63), 10**12, 10**9)


def value(rng: Rng, depth: int = 0) -> Any:
    """A value that is not expected where it stands."""
    kind = int(rng.integers(0, 6 if depth < 2 else 4))
    if kind == 0:
        return None
    if kind == 1:
        return TEXTS[int(rng.integers(len(TEXTS)))]
    if kind < 4:
        return NUMBERS[int(rng.integers(len(NUMBERS)))]
    items = [value(rng, depth + 1) for _ in range(int(rng.integers(0, 4)))]
    return items if kind == 4 else {str(TEXTS[int(rng.integers(4))]): item for item in items}


def changed(document: Any, rng: Rng) -> Any:
    """A JSON document with one to three of its parts replaced, removed or added."""
    for _ in range(int(rng.integers(1, 4))):
        spots = list(_spots(document))
        if not spots:
            return value(rng)
        holder, key = spots[int(rng.integers(len(spots)))]
        way = rng.random()
        if way < 0.7:
            holder[key] = value(rng)
        elif way < 0.85:
            del holder[key]
        elif isinstance(holder, dict):
            holder[str(TEXTS[int(rng.integers(len(TEXTS)))])] = value(rng)
        else:
            holder.extend([value(rng)] * int(rng.integers(1, 5)))
    return document


def _spots(part: Any) -> Any:
    for key in list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ():
        yield part, key
        yield from _spots(part[key])


def text_of(document: Any, rng: Rng) -> str:
    """A document as JSON; sometimes nested too deeply, sometimes cut off."""
    text = json.dumps(document)
    way = rng.random()
    if way < 0.05:
        return text.replace('"', DEEP + '"', 1)
    if way < 0.1:
        return DEEP
    return text[: int(rng.integers(0, len(text)))] if way < 0.15 else text


def flipped(data: bytes, rng: Rng, front: int | None = None) -> bytes:
    """The same bytes with some replaced, near the beginning or anywhere; sometimes cut off."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 8))):
        at = int(rng.integers(0, min(front or len(out), len(out))))
        out[at] = int(rng.integers(0, 256))
    return bytes(out[: int(rng.integers(1, len(out)))] if rng.random() < 0.15 else out)
