"""JSON from files that others may have written: every way in which it can be wrong is a ValueError with one line to say.

Python's parser recurses with the text and makes some 20 bytes of objects of a byte of text, so text is bounded. It takes half
of a surrogate pair for a letter, which no file, terminal or table then takes: it is spelled out instead.
"""

from __future__ import annotations

import json
from typing import Any, TypeGuard

MOST = 8 << 20  # bytes; the metadata of a store of a hundred corpora has half a megabyte


def parse(data: bytes | str, most: int = MOST) -> Any:
    """The value that JSON text stands for. Raises ValueError where it is none, too long or nested too deep."""
    if len(data) > most:
        raise ValueError(f"its JSON has {len(data)} bytes, at most {most} are read")
    try:
        value = json.loads(data)
        if "\\ud" in (data if isinstance(data, str) else data.decode("utf-8", "replace")).lower():
            value = _spelled(value)
    except RecursionError:
        raise ValueError("its JSON is nested too deep") from None
    return value


def text(value: str) -> str:
    """The same, with what UTF-8 cannot hold (halves of surrogate pairs, bytes of file names) spelled out: \\udcff."""
    return value.encode("utf-8", "backslashreplace").decode()


def _spelled(value: Any) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return {text(key): _spelled(item) for key, item in value.items()}
    return [_spelled(item) for item in value] if isinstance(value, list) else value


def parse_dict(data: bytes | str, most: int = MOST) -> dict[str, Any]:
    """The same for what must be a JSON object."""
    value = parse(data, most)
    if not isinstance(value, dict):
        raise ValueError(f"its JSON is a {type(value).__name__}, expected an object")
    return value


def is_count(value: Any, least: int = 0, most: int = 1 << 48) -> TypeGuard[int]:
    """Whether a value is a whole number (True is none) within bounds."""
    return type(value) is int and least <= value <= most
