"""The result of an audit in words: what was checked, on how many clips, and what was not.

Every sentence is made from actual comparisons. "None found" is said only about what was checked, and never if there are
so few clips or people that a shortcut could not be distinguished from chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from concord.text import counted
from pipelines.audit.coverage import FOLLOW, NO_SPLITS
from pipelines.audit.found import Found
from pipelines.audit.leaks import Leak
from pipelines.audit.nuisances import means
from pipelines.audit.shortcuts import ALL, FEW_CLIPS, FEW_GROUPS, Shortcut, why_none
from store import seen

FIT = "the store's fit"
SHOWN = 12  # nuisances of a corpus shown in the terminal
SHARED = {"people": "person", "sources": "source", "files": "file", "fingerprints": "picture and sound"}
GAPS = {
    ("shared clip", "unchecked"): "shared clips were not looked for",
    ("shared person", "unchecked"): "shared people were not looked for",
    ("shared person", "groups"): "people were not checked, only groups, of which none is shared",
    ("shared person", "few"): "too few people to say whether some are shared",
    ("shortcut", "unchecked"): "shortcuts could not be looked for",
    ("shortcut", "few"): "too few clips or people to say anything about shortcuts",
    ("shortcut", "some"): "too few clips to say anything about the shortcuts of some methods",
}


@dataclass(frozen=True)
class Check:
    """One check: `state` is found, none (looked for, not found), few (too few to say) or unchecked."""

    what: str
    state: str
    text: str


def checks(found: Found) -> list[Check]:
    """People, sources, files and fingerprints shared between splits, then shortcuts by corpus and method."""
    kinds = [kind for kind in SHARED if found.checked[kind].why != FOLLOW]  # the check of people covers it
    return [*(_shared(kind, found) for kind in kinds), *_taught(found), *_shortcuts(found)]


def _taught(found: Found) -> Iterator[Check]:
    """Whether the store's fit has learned from clips outside train."""
    if found.fit_seen is None:
        return
    state = "found" if found.taught else "none"
    if any(one.clips is None for one in found.fit_seen.values()):
        state = "unchecked"
    more = "; soft labels and teachers' figures there are too good" if found.taught else ""
    yield Check(FIT, state, f"{seen.sentence(found.fit_seen)}{more}")


def _shared(kind: str, found: Found) -> Check:
    told = found.checked[kind]
    leaks = [leak for leak in found.leaks if _kind(leak) == kind]
    if leaks:
        return Check(kind, "found", "; ".join(leak.text() for leak in leaks))
    if not told.on:
        return Check(kind, "unchecked", f"not checked: {told.why}")
    how = f"compared by {told.by}" if kind in ("files", "fingerprints") else f"column {told.by}"
    text = f"none shared: checked on {told.on:,} of {counted(told.of, 'clip')} ({how})"
    if told.names is not None:
        text += f", {told.names:,} {'people' if kind == 'people' else 'people or sources'}"
        text += f", {told.fewest:,} in the smallest part"
        if told.names < FEW_GROUPS:
            return Check(kind, "few", f"{text}: too few to say anything about other people")
    return Check(kind, "none", text)


def _kind(leak: Leak) -> str:
    """The check that a leak belongs to."""
    if leak.kind == "identity":
        return "sources" if leak.who == "group" else "people"
    return {"file": "files", "content": "fingerprints"}[leak.kind]


def _shortcuts(found: Found) -> list[Check]:
    if not found.shortcuts:
        return [Check("shortcuts", "unchecked", f"not checked: {why_none(found.counts['label'])}")]
    checks = []
    for corpus in dict.fromkeys(s.corpus for s in found.shortcuts):
        mine = [s for s in found.shortcuts if s.corpus == corpus]
        for method in dict.fromkeys(s.method for s in mine):
            of = [s for s in mine if s.method == method]
            worst = max(of, key=lambda s: (s.above(found.allow), s.auc))
            name = f"shortcuts of {corpus}" + ("" if method == ALL else f" ({method})")
            if count := sum(s.above(found.allow) for s in of):
                text = f"{count} of {len(of)} numbers above {found.allow:g}; the worst, {measured(worst)}"
                checks.append(Check(name, "found", text))
            elif all(s.few for s in of):
                checks.append(
                    Check(name, "few", f"too few to say ({few(worst)}); the worst of {len(of)}, {measured(worst)}")
                )
            else:
                text = f"none of {len(of)} numbers is above {found.allow:g} beyond chance; the worst, {measured(worst)}"
                checks.append(Check(name, "none", text))
    return checks


def measured(short: Shortcut) -> str:
    """One number's figure, its interval and the clips behind both."""
    people = f" of {counted(short.people, 'person', 'people')}" if short.people else ""
    return (
        f"{means(short.nuisance)}, picks the fake {100 * short.auc:.1f} times in 100 (95 %: {100 * short.low:.1f} to "
        f"{100 * short.high:.1f}; guessing: 50) on {counted(short.fakes, 'fake')} and {counted(short.reals, 'real')}{people}"
    )


def few(short: Shortcut) -> str:
    """What is too few in a comparison, and how many it would take."""
    lacks = [f"{n:,} {kind}" for kind, n in (("fakes", short.fakes), ("reals", short.reals)) if n < FEW_CLIPS]
    if lacks:
        return f"{' and '.join(lacks)}, {FEW_CLIPS} are needed"
    return f"{counted(short.people, 'person', 'people')}, {FEW_GROUPS} are needed"


def headline(found: Found) -> tuple[str, str, str]:
    """Tone (good, warn, bad), the sentence with the finding, and its consequence."""
    made = checks(found)
    short = [c for c in made if c.what.startswith("shortcuts")]
    shared = [c for c in made if c.what in SHARED]
    if any(c.state == "found" for c in made):
        people = any(c.state == "found" and c.what in ("people", "sources") for c in shared)
        clips = any(c.state == "found" and c.what in ("files", "fingerprints") for c in shared)
        new = f"it shares {' and '.join(['clips'] * clips + ['people or sources'] * people)} with the training"
        head = f"The test is not new: {new}" if people or clips else ""
        if any(c.state == "found" for c in short):
            known = (
                "Some test clips were seen in training" if clips else "Some people of the test were seen in training"
            )
            outside = "Fakes can be distinguished from real clips without looking at them"
            head = f"{known}, and fakes can be recognised without looking" if people or clips else outside
        elif not head:
            head = "The store's fit has learned from clips of its test"
        why = (
            "A deepfake detector can score well on this data without having learned anything about forgery. "
            "Do not trust a score on it until what is listed here is removed."
        )
        return "bad", head, f"{why}{_gaps(made)}"
    sides = {
        "shared clip": _state([c for c in shared if c.what in ("files", "fingerprints")]),
        "shared person": people_state({c.what: c for c in shared}),
        "shortcut": "some" if {c.state for c in short} == {"none", "few"} else _state(short),
    }
    clear = [what for what, state in sides.items() if state == "none"]
    if len(clear) == len(sides):
        return (
            "good",
            "No leak and no shortcut found",
            f"Nothing that was checked reveals the labels.{_gaps(made)}",
        )
    missing = [GAPS[what, state] for what, state in sides.items() if state != "none"]
    if sides["shared clip"] == sides["shared person"] == "unchecked":
        missing[:2] = ["shared clips and people were not looked for"]
    open_ = ", ".join(missing)
    head = f"No {' and no '.join(clear)} found; {open_}" if clear else f"{open_[:1].upper()}{open_[1:]}"
    if all(state == "unchecked" for state in sides.values()):
        head = "There was nothing to check"
    return "warn", head, f"What could not be checked may still reveal the labels.{_gaps(made)}"


def people_state(made: Mapping[str, Check]) -> str:
    """The state of the checks of people and sources together: "groups" if only groups could be compared."""
    state = _state([made[kind] for kind in ("people", "sources") if kind in made])
    return "groups" if state != "unchecked" and made["people"].state == "unchecked" else state


def _state(some: Sequence[Check]) -> str:
    """The best of several checks of one kind: one that was made beats "few", and "few" beats "unchecked"."""
    states = {c.state for c in some}
    return next((state for state in ("none", "few") if state in states), "unchecked")


def _gaps(made: Sequence[Check]) -> str:
    """What was not checked, as a sentence; "" if everything was."""
    gaps = [c.what for c in made if c.state == "unchecked" and c.what != "sources"]
    return f" Not checked: {', '.join(gaps)}." if gaps else ""


def unsaid(made: Sequence[Check]) -> str:
    """What the leaks and shortcuts do not cover, for the beginning of a line."""
    gaps = [c.what for c in made if c.state == "unchecked" and c.what != "sources"]
    small = [c.what for c in made if c.state == "few"]
    told = [f"{what}: {', '.join(some)}" for what, some in (("not checked", gaps), ("too few to say", small)) if some]
    return "".join(f"{text}; " for text in told)


def next_steps(found: Found) -> list[str]:
    """What makes an audit of lists complete, as sentences with a command each; none if nothing is missing."""
    steps = []
    if NO_SPLITS in (told.why for told in found.checked.values()):
        made = "python -m pipelines.manifest ... --protocol NAME -o splits.csv makes splits, --protocol list names them"
        steps.append(f"The clips have no splits, between which something could leak: {made}")
    if not found.opened:
        steps.append("No media file was opened: the same command with --media compares sounds and pictures")
    return steps


@dataclass(frozen=True)
class Line:
    """A line for a terminal; `tone` is "", bold or bad."""

    text: str = ""
    tone: str = ""


def lines(found: Found) -> Iterator[Line]:
    """The terminal output: clips, leaks, the worst method of each nuisance, faults, and a closing line."""
    labels = ", ".join(f"{n:,} {name}" for name, n in found.counts["label"].items())
    made = checks(found)
    yield Line(f"{counted(found.rows, 'row')}, {counted(found.distinct, 'distinct clip')}: {labels}")
    yield from _head("Leaks between splits")
    for check in made:
        if check.what == FIT:
            yield Line(f"  {'fit':12} {check.text}", "bad" if check.state == "found" else "")
        if check.what in SHARED and check.state != "found":
            yield Line(f"  {check.what:12} {check.text}")
    for leak in found.leaks:
        yield Line(f"  {leak.kind:9} {leak.text()}", "bad")
        yield Line(f"            for instance {leak.examples[0].what}")
    yield from _head("Shortcuts: AUC of one number alone (0.5 = guessing; 95 % interval)")
    if not found.shortcuts:
        yield Line(f"  {why_none(found.counts['label'])}")
    for corpus in dict.fromkeys(s.corpus for s in found.shortcuts):
        yield Line(f"  {corpus}")
        yield from _numbers(found, [s for s in found.shortcuts if s.corpus == corpus])
    yield from _head("Faults")
    if not found.faults:
        yield Line("  none in the lists; no media file was opened" if not found.opened else "  none noted")
    for fault in found.faults:
        yield Line(f"  {fault.count:7,} {fault.kind}: {fault.examples[0].id}: {fault.examples[0].text}")
    if found.soft_labels is not None:
        yield from _head("Soft labels: mean agreement of lips and voice, and how many frames have one")
        for name, count in found.soft_labels.items():
            total = sum(count)
            mean = sum((k + 0.5) * n for k, n in enumerate(count)) / (len(count) * total) if total else 0.0
            told = f"{mean:.2f} over {counted(total, 'frame')}" if total else "none; the store has no fit"
            yield Line(f"  {name:22} {told}")
    yield Line()
    yield Line(headline(found)[1])
    unseen = unsaid(made)
    yield Line(
        f"{unseen}{len(found.leaks)} leaks, {len(found.above)} shortcuts above {found.allow:g}{' in the rest' * bool(unseen)}"
    )
    for step in next_steps(found):
        yield Line(f"next: {step}")


def _head(text: str) -> Iterator[Line]:
    yield Line()
    yield Line(text, "bold")


def _numbers(found: Found, mine: Sequence[Shortcut]) -> Iterator[Line]:
    """The numbers of one corpus, each with its worst method."""
    best: dict[str, Shortcut] = {}
    for short in mine:
        best.setdefault(short.nuisance, short)
    if all(short.few for short in mine):
        most = max(mine, key=lambda short: (short.people, min(short.fakes, short.reals)))
        yield Line(f"    {counted(len(best), 'number')}, but too few to say: {few(most)}")
        return
    for name, short in list(best.items())[:SHOWN]:
        every = next((s for s in mine if (s.nuisance, s.method) == (name, ALL)), None)
        line = (
            f"    {name:22} {short.auc:.3f} ({short.low:.3f} to {short.high:.3f})  "
            f"{short.method}: {counted(short.fakes, 'fake')}, {counted(short.reals, 'real')}"
        )
        line += f"; all fakes {every.auc:.3f}" if every and short.method != ALL else ""
        if short.above(found.allow):
            yield Line(line, "bad")
        else:
            yield Line(f"{line} (too few to say: {few(short)})" if short.few else line)
