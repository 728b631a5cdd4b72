"""The result of an audit for the page: `audit.json`, which `pipelines.audit` writes beside a store's arrays.

The file may be another one, or one that somebody has edited, so every field is looked at before it is shown: what is
not as docs/audit.md has it is refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from concord import plain_json
from store.layout import StoreError
from store.place import Place

FILE = "audit.json"
MOST = 64 << 20  # bytes; every fault has a few examples, every corpus some numbers by method

A = TypeVar("A")


@dataclass(frozen=True)
class Shortcut:
    """One number that may tell fakes of one method from reals: its AUC with a 95 % interval."""

    corpus: str
    nuisance: str
    method: str
    auc: float
    low: float
    high: float
    fakes: int
    reals: int
    finding: bool
    few: bool


@dataclass(frozen=True)
class Check:
    """What was compared between splits: on `on` of `of` clips, by what, or why not."""

    kind: str
    on: int
    of: int
    by: str
    why: str


@dataclass(frozen=True)
class Example:
    """A clip that a finding names, and what is said of it."""

    id: str
    text: str


@dataclass(frozen=True)
class Group:
    """A leak or a kind of fault: a sentence, how many, and some clips."""

    text: str
    count: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Audit:
    """What an audit found; `clips` is how many clips the audited store had, None where it was no store. `soft_labels` are
    numbers of frames in equal bins from 0 to 1, by method."""

    rows: int
    distinct: int
    clips: int | None
    allow: float
    findings: tuple[str, ...]
    checks: tuple[Check, ...]
    shortcuts: tuple[Shortcut, ...]
    leaks: tuple[Group, ...]
    faults: tuple[Group, ...]
    soft_labels: Mapping[str, tuple[int, ...]]


def read(file: Place) -> Audit | None:
    """The audit in a file; None where there is no such file. Raises StoreError where it is not an audit's."""
    try:
        return parse(file.read())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(
            f"{file} is no report of pipelines.audit ({error}); run it again, or give the file that its --json wrote"
        ) from None


def parse(data: bytes) -> Audit:
    """From the bytes of audit.json. Raises ValueError that says what is wrong."""
    found = _Fields(plain_json.parse_dict(data, MOST))
    checked = found.object("checked")
    labels = found.object("soft_labels", optional=True).object("methods", optional=True)
    return Audit(
        rows=found.whole("rows"),
        distinct=found.whole("distinct"),
        clips=found.whole("clips") if found.has("clips") else None,
        allow=found.number("allow"),
        findings=tuple(found.texts("findings")),
        checks=tuple(_check(kind, checked.object(kind)) for kind in checked.values),
        shortcuts=tuple(_shortcut(one) for one in found.objects("shortcuts")),
        leaks=tuple(_leak(one) for one in found.objects("leaks")),
        faults=tuple(_fault(one) for one in found.objects("faults")),
        soft_labels={name: labels.counts(name) for name in labels.values},
    )


def _shortcut(one: _Fields) -> Shortcut:
    return Shortcut(
        corpus=one.text("corpus"),
        nuisance=one.text("nuisance"),
        method=one.text("method"),
        auc=one.number("auc"),
        low=one.number("low"),
        high=one.number("high"),
        fakes=one.whole("fakes"),
        reals=one.whole("reals"),
        finding=one.flag("finding"),
        few=one.flag("few"),
    )


def _check(kind: str, one: _Fields) -> Check:
    return Check(kind, one.whole("on"), one.whole("of"), one.text("by", optional=True), one.text("why", optional=True))


def _leak(one: _Fields) -> Group:
    """An example of a shared file or content names a clip of each split, one of a shared person how many clips of each."""
    splits, examples = one.texts("splits"), []
    for example in one.objects("examples"):
        what = example.text("what")
        if all(type(example.values.get(split)) is int for split in splits):
            told = ", ".join(f"{example.whole(split):,} in {split}" for split in splits)
            examples.append(Example(what, f"clips: {told}"))
        else:
            examples += [Example(example.text(split), f"{what}, in {split}") for split in splits]
    return Group(one.text("text"), one.whole("count"), tuple(examples))


def _fault(one: _Fields) -> Group:
    examples = tuple(Example(example.text("id"), example.text("text")) for example in one.objects("examples"))
    return Group(one.text("kind").replace("_", " "), one.whole("count"), examples)


class _Fields:
    """Fields of a JSON object, each of the type that is asked for; ValueError names one that is not."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def has(self, name: str) -> bool:
        return name in self.values

    def text(self, name: str, optional: bool = False) -> str:
        return self._of(name, str, "" if optional else None)

    def whole(self, name: str) -> int:
        return self._of(name, int)

    def number(self, name: str) -> float:
        if type(self.values.get(name)) is not int:
            return self._of(name, float)
        try:
            return float(self._of(name, int))
        except OverflowError:
            raise ValueError(f"its {name} is too large") from None

    def flag(self, name: str) -> bool:
        return self._of(name, bool)

    def object(self, name: str, optional: bool = False) -> _Fields:
        found: dict[str, Any] = self._of(name, dict, {} if optional else None)
        return _Fields(found)

    def objects(self, name: str) -> list[_Fields]:
        return [_Fields(value) for value in self._all(name, dict)]

    def texts(self, name: str) -> list[str]:
        return self._all(name, str)

    def counts(self, name: str) -> tuple[int, ...]:
        found: list[int] = self._all(name, int)
        return tuple(found)

    def _all(self, name: str, kind: type[A]) -> list[A]:
        found: list[A] = self._of(name, list)
        if wrong := [value for value in found if type(value) is not kind]:
            raise ValueError(f"its {name} has a {type(wrong[0]).__name__}")
        return found

    def _of(self, name: str, kind: type[A], default: A | None = None) -> A:
        value = self.values.get(name, default)
        if value is None and name not in self.values:
            raise ValueError(f"it has no {name}")
        if type(value) is not kind:
            raise ValueError(f"its {name} is a {type(value).__name__}")
        return value
