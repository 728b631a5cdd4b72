"""Secrets: how options for object stores are given, and the `redact` that every message passes through.

A command line is visible in process lists and in Ray's table of jobs, so it accepts only harmless options
(`check_shown`). Secrets come from what obstore reads by itself (AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS
...), from the variable CONCORD_STORAGE_OPTIONS or from a file that only its owner can read.

`redact` knows the forms that secrets have in texts, and the secret values of this process: those of its environment and of each
`store.place` that was made in it (`know`), so workers know theirs.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote, urlsplit

from concord import plain_json
from concord.errors import ConcordError

VARIABLE = "CONCORD_STORAGE_OPTIONS"
HIDDEN = "..."
MOST_BYTES = 1 << 16  # of a file of options
SAFE_WAYS = (
    f"put it into a file for --storage-options-file, or into the environment (AWS_SECRET_ACCESS_KEY ..., {VARIABLE})"
)
SECRET = re.compile(
    r"secret|token|passw|pwd|credential|key|signature|auth|header|cookie|sas|private|bearer|account|jwt"
)
HARMLESS = re.compile(r"(aws_|google_)?(skip_signature|sse_kms_key_id|(sse_)?bucket_key_enabled)")
SETTINGS = ("AWS_", "GOOGLE_", "GCS_", "AZURE_", VARIABLE)  # how variables begin whose values may be secrets
COMMON = frozenset("true false none null yes no on off auto default password secret token".split())
ANYWHERE, WORD = 8, 4  # shortest secrets, in characters, that are searched for inside other words, and as words

_known: set[str] = set()


class OptionError(ConcordError):
    """Options for buckets that cannot be used as given; the text shows no secret."""


class Options(dict[str, str]):
    """Options for object stores, which no `repr` shows."""

    def __repr__(self) -> str:
        return f"Options({', '.join(f'{key}={HIDDEN}' for key in self)})"


def is_secret(key: str) -> bool:
    """Whether an option of this name holds a secret."""
    name = key.lower().replace("-", "_")
    return bool(SECRET.search(name)) and not HARMLESS.fullmatch(name)


def check_shown(key: str, value: str) -> None:
    """Raises OptionError where an option is too secret for a command line; the text does not hold its value."""
    if is_secret(key):
        raise OptionError(f"{key} may be a secret, and command lines can be read by others; {SAFE_WAYS}")
    if re.search(r"://.*[@?]|:.+@", value, re.DOTALL) or redact(value) != value:
        raise OptionError(
            f"the value of {key} has a user, a password or a query in it, and command lines can be read by others; {SAFE_WAYS}"
        )


def from_environment() -> Options:
    """Options that the variable CONCORD_STORAGE_OPTIONS tells. Raises OptionError."""
    return parse(os.environ.get(VARIABLE, ""), f"the variable {VARIABLE}")


def from_file(path: str) -> Options:
    """Options of a file that its owner alone can read. Raises OptionError, whose text holds nothing of what is in it."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & 0o077 and not stat.S_ISCHR(mode):
                raise OptionError(f"{path} holds secrets and can be read by others; say chmod 600 {path}")
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise OptionError(f"{path} cannot be read: {error.strerror}; name a file of storage options") from error
    if len(data) > MOST_BYTES:
        raise OptionError(f"{path} is not a file of storage options: it has more than {MOST_BYTES} bytes")
    try:
        return parse(data.decode("utf-8-sig"), path)
    except UnicodeDecodeError:
        raise OptionError(f"{path} is not a file of storage options: it is not UTF-8 text") from None


def parse(text: str, where: str) -> Options:
    """Options from a JSON object, or from lines of KEY=VALUE in which # begins a remark. Raises OptionError."""
    wanted = f"{where} must hold a JSON object of strings, or lines of KEY=VALUE"
    if text.lstrip().startswith("{"):
        try:
            found = plain_json.parse_dict(text)
        except ValueError:
            raise OptionError(wanted) from None  # the cause quotes the text
        if not all(isinstance(value, str | int | bool) for value in found.values()):
            raise OptionError(wanted)
        pairs = [(key, str(value).lower() if isinstance(value, bool) else str(value)) for key, value in found.items()]
    else:
        lines = [line.strip() for line in text.splitlines()]
        parts = [line.partition("=") for line in lines if line and not line.startswith("#")]
        if not all(separator for _, separator, _ in parts):
            raise OptionError(wanted)
        pairs = [(key.strip(), value.strip()) for key, _, value in parts]
    if not all(key for key, _ in pairs):
        raise OptionError(wanted)
    return Options(pairs)


def know(options: Mapping[str, str]) -> None:
    """Have `redact` hide the secrets among these from now on."""
    for key, value in options.items():
        _known.update(_secrets(key, value))


def redact(text: str) -> str:
    """The text with secrets hidden: passwords and queries in URLs, keys and tokens by their form, and all known values."""
    values = set(_known)
    for name, value in os.environ.items():
        if name.startswith(SETTINGS):
            values.update(_secrets(name, value))
    for value in sorted(values, key=len, reverse=True):
        if value in text:
            text = _hidden(text, value)
    for form, by in FORMS:
        text = form.sub(by, text)
    return text


def _hidden(text: str, value: str) -> str:
    """The text without a secret. Short ones go where they stand as words, and paths where they stand whole."""
    if value[0] in "/~." or len(value) < ANYWHERE:
        return re.sub(rf"(?<![\w/.-]){re.escape(value)}(?![\w/-])", HIDDEN, text)
    return text.replace(value, HIDDEN)


def _secrets(key: str, value: str) -> Iterator[str]:
    """What of an option's value must not be shown, in the spellings that it may have in a text."""
    found = [value] if is_secret(key) or key == VARIABLE else []
    if "://" in value:
        try:
            parts = urlsplit(value)
            found += [parts.query, parts.password or "", (parts.username or "") if parts.password else ""]
        except ValueError:  # no URL after all
            found.append(value)
    for one in found:
        if len(one) >= WORD and one.lower() not in COMMON and not (one.isdecimal() and len(one) < ANYWHERE):
            quoted = {quote(one, safe, errors="replace") for safe in ("/", "")}
            yield from {one, *quoted, json.dumps(one)[1:-1], repr(one)[1:-1]}


def _query(found: re.Match[str]) -> str:
    """A URL without its query, unless that is the harmless one of a listing."""
    names = {part.partition("=")[0] for part in found[2].split("&")}
    return found[0] if names <= {"list-type", "prefix", "delimiter", "max-keys"} else f"{found[1]}?{HIDDEN}"


# What may repeat is bounded, so that no text takes long.
_NAMES = r"signature|credential|token|secret|passw(?:or)?d|pwd|api[-_]?key|access[-_]?key|private[-_]?key|\bsig\b"
_WORD = rf"\w{{0,40}}(?:{_NAMES})\w{{0,40}}"
_VALUE = r"(?:\\?\"[^\"]{0,9999}\"|\\?'[^']{0,9999}'|(?!\.\.\.)[^\s,;&)}\]\"']{4,})"
_SCHEME = r"\b[a-z][a-z0-9+.-]{0,20}://"
FORMS: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (
        re.compile(
            r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)", re.DOTALL
        ),
        HIDDEN,
    ),
    # user:password@ in a URL, with marks in the password that should have been escaped; a port is not one
    (
        re.compile(
            rf"(?i)({_SCHEME})(?:[^\s/?#@:\"'<>]{{0,500}}:(?!\d+[/?#])[^\s\"'<>]{{0,500}}@|[^\s/?#@\"'<>]{{0,500}}@)"
        ),
        rf"\1{HIDDEN}@",
    ),
    (re.compile(r"(?i)(\bhttps?://[^\s?\"'<>]{0,2000})\?(?!\.\.\.)([^\s\"'<>)]+)"), _query),
    (
        re.compile(
            rf"(?i)((?:[?&;]|%3F|%26)[\w.%-]{{0,40}}(?:{_NAMES})[\w.-]{{0,40}}(?:=|%3D))(?:(?!%26)[^&\s\"'<>)])+"
        ),
        rf"\1{HIDDEN}",
    ),
    # name=value in any text; name: value where it is quoted (JSON, the repr of a dict) or can be nothing else
    (re.compile(rf"(?i)(\b{_WORD}[\"']?\s?=\s?){_VALUE}"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)([\"']{_WORD}\\?[\"']\s?:\s?){_VALUE}"), rf"\1{HIDDEN}"),
    (
        re.compile(rf"(?i)(\b(?:password|passwd|\w{{0,40}}secret_\w{{0,40}}key|\w{{1,40}}_token)\s?:\s?){_VALUE}"),
        rf"\1{HIDDEN}",
    ),
    (
        re.compile(r"(?i)\b(authorization|bearer|basic)((?:[\"']?[:=]\s?|\s)(?:bearer |basic )?)[\w.~+/=-]{16,}"),
        rf"\1\2{HIDDEN}",
    ),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), HIDDEN),
]
