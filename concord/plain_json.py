"""JSON: untrusted text is read with limits, and written text is standard, so that any tool can read it.

Every fault in foreign JSON raises ValueError with one line of text. Python's parser recurses with the text and makes
about 20 bytes of objects from each byte, so the text is limited. The parser accepts half of a surrogate pair, but
terminals, tables and pages do not: `parse` spells it out (\\udcff). `parse_exact`, for documents with paths, keeps the
halves that represent bytes of file names and refuses all others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from concord.text import spelled

DIGITS = 300  # of a whole number: one more could be too large for a float
MOST = 8 << 20  # bytes; the metadata of a store of a hundred corpora has half a megabyte


def parse(data: bytes | str, most: int = MOST) -> Any:
    """The value of a JSON text, halves of surrogate pairs spelled out.

    Raises ValueError if it is not JSON, longer than `most` bytes or nested too deeply, or has a whole number of more than
    DIGITS digits.
    """

    return _bounded(data, most, lambda: _spelled(json.loads(data, parse_int=_whole)))


def parse_dict(data: bytes | str, most: int = MOST) -> dict[str, Any]:
    """The same for what must be a JSON object."""
    value = parse(data, most)
    if not isinstance(value, dict):
        raise ValueError(f"its JSON is a {type(value).__name__}, expected an object")
    return value


def parse_exact(data: bytes | str, most: int = MOST) -> Any:
    """The value of a JSON text whose strings may be names of files.

    Raises ValueError as `parse` does, and for half of a surrogate pair that stands for no byte of a name.
    """

    def loaded() -> Any:
        value = json.loads(data, parse_int=_whole)
        json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape")
        return value

    return _bounded(data, most, loaded)


def is_count(value: object, least: int = 0, most: int = 1 << 48) -> TypeGuard[int]:
    """Whether a value is an integer within bounds; True is not."""
    return type(value) is int and least <= value <= most


def cleaned(value: Any, text: Callable[[str], str] = str, digits: int | None = None) -> Any:
    """A copy that standard JSON can hold: numpy's numbers and arrays as Python's, tuples as lists, keys as strings, NaN and
    infinities as None.

    `text` is applied to all strings; floats keep so many significant `digits`, all by default. Raises TypeError for values of
    other types.
    """
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        value = value.tolist()
    if isinstance(value, Mapping):
        return {text(str(key)): cleaned(inner, text, digits) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(inner, text, digits) for inner in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if digits is None else float(f"{value:.{digits}g}")
    if isinstance(value, str):
        return text(value)
    if value is None or isinstance(value, int):
        return value
    raise TypeError(f"JSON cannot hold a value of type {type(value).__name__}")


def _bounded(data: bytes | str, most: int, loaded: Callable[[], Any]) -> Any:
    unit = "characters" if isinstance(data, str) else "bytes"
    if len(data) > most:
        raise ValueError(f"its JSON has {len(data)} {unit}, at most {most} are read")
    try:
        return loaded()
    except RecursionError:
        raise ValueError("its JSON is nested too deep") from None


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"its JSON has a whole number of {len(digits)} digits")
    return int(digits)


def _spelled(value: Any) -> Any:
    if isinstance(value, str):
        return spelled(value)
    if isinstance(value, dict):
        return {spelled(key): _spelled(item) for key, item in value.items()}
    return [_spelled(item) for item in value] if isinstance(value, list) else value
