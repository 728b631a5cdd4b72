"""Foreign text in other formats: names of files, ids, methods and messages come from anywhere, and may be crafted to do harm.

There is one function per format, and no other code escapes: `plain` for terminals and logs, `html` for pages,
`markdown` and `code` for Markdown, `label` for pictures; tables are `store.formats.table`'s. Each accepts any string,
even lone surrogates, and returns text without active content for a terminal, a browser or a parser.
"""

from __future__ import annotations

import html as _html
import re
import unicodedata
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

UNITS = ("kB", "MB", "GB", "TB", "PB")
CLEAN = re.compile(r"[\w ./:,@+=~()'-]*", re.ASCII)  # what a code span in Markdown shows as it is


def plain(value: object) -> str:
    """Text for a line of a terminal or a log: what cannot be printed, line ends too, stands as its code (\\x1b, \\u202e)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def spelled(text: str) -> str:
    """The same text with what UTF-8 cannot hold (halves of surrogate pairs, bytes of file names) spelled out: \\udcff."""
    return text.encode("utf-8", "backslashreplace").decode()


def byte_size(count: float) -> str:
    """A number of bytes in words: 512 bytes, 312.5 MB, 1.2 GB (powers of 1000).

    Not by rich.filesize: the doctor's checks must run on a node where every library is missing.
    """
    count = round(count)
    if count < 1000:
        return "1 byte" if count == 1 else f"{count} bytes"
    size = float(count)
    for unit in UNITS:
        size /= 1000
        if round(size, 1) < 1000 or unit == UNITS[-1]:
            break
    return f"{size:,.1f} {unit}"


def counted(n: float, one: str, many: str = "") -> str:
    """A number with what is counted, in the form that goes with it: 1 clip, 2,000 clips; `many` where an s is not enough
    ("clip is", "clips are")."""
    return f"{n:,} {one if n == 1 else many or f'{one}s'}"


def first_sentence(docstring: str) -> str:
    """The first sentence of a docstring, in one line; the whole first paragraph if no sentence ends in it."""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    found = re.match(r".*?[.](?=\s+[A-Z`]|$)", paragraph)
    return found[0] if found else paragraph


def plain_lines(text: str) -> str:
    """The same of a text whose line ends are its own."""
    return "\n".join(plain(line) for line in text.split("\n"))


def plain_all(value: Any) -> Any:
    """The same of all strings in dicts, lists and tuples, keys too."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {plain_all(key): plain_all(inner) for key, inner in value.items()}
    return [plain_all(inner) for inner in value] if isinstance(value, list | tuple) else value


def html(value: object) -> str:
    """Text for a page, in an element or a quoted attribute: marks escaped; controls, which may turn the direction of writing,
    as codes."""
    text = "".join(
        f"\\u{ord(c):04x}" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in str(value)
    )
    return _html.escape(text)


def markdown(value: object) -> str:
    """Text for a line or a table's cell of Markdown: no mark, link, tag, formula or new line comes of it."""
    text = plain(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
    text = text.replace("://", ":\\//")  # many viewers turn it into a link
    return re.sub(r"(?i)\bwww\.", lambda found: found[0][:-1] + "\\.", text)


def code(value: object) -> str:
    """A name as a code span of Markdown; as escaped text where it holds what could end the span."""
    text = str(value)
    return f"`{text}`" if text.strip() == text != "" and CLEAN.fullmatch(text) else markdown(text)


def label(value: object) -> str:
    """Text for matplotlib: no formula comes of it, and no legend leaves it out."""
    text = plain(value).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean NAME?" for the known name most like a word; "" if none is."""
    near = get_close_matches(word, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""
