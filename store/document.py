"""JSON from files that others may have written: every way in which it can be wrong is a ValueError with one line to say.

Python's parser recurses with the text, takes half of a surrogate pair for a letter (which no file, terminal or table then
takes) and makes some 20 bytes of objects of a byte of text; so text is bounded, and both are refused here.
"""

from __future__ import annotations

import json
from typing import Any

MOST = 8 << 20  # bytes; the metadata of a store of a hundred corpora has half a megabyte


def parse(data: bytes | str, most: int = MOST) -> Any:
    """The value that JSON text stands for. Raises ValueError where it is none, too long, nested too deep or no Unicode."""
    if len(data) > most:
        raise ValueError(f"its JSON has {len(data)} bytes, at most {most} are read")
    try:
        value = json.loads(data)
        if "\\ud" in (data if isinstance(data, str) else data.decode("utf-8", "replace")).lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("its JSON is nested too deep") from None
    except UnicodeEncodeError:
        raise ValueError("its JSON holds half of a surrogate pair, which is no letter") from None
    return value


def parse_dict(data: bytes | str, most: int = MOST) -> dict[str, Any]:
    """The same for what must be a JSON object."""
    value = parse(data, most)
    if not isinstance(value, dict):
        raise ValueError(f"its JSON is a {type(value).__name__}, expected an object")
    return value


def is_count(value: Any, least: int = 0, most: int = 1 << 48) -> bool:
    """Whether a value is a whole number (True is none) within bounds."""
    return type(value) is int and least <= value <= most
