"""What an audit says in words: of each thing that can give a corpus away, what was looked at, on how many, and what was not.

Every sentence is made from what was really compared. "Nothing found" is said of what was checked alone, and never of so few
clips or people that a shortcut could not have been told from luck.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.audit.coverage import FOLLOW
from pipelines.audit.nuisances import means
from pipelines.audit.rates import FEW_GROUPS
from pipelines.audit.shortcuts import FEW_CLIPS, why_none

SHARED = {"people": "person", "sources": "source", "files": "file", "fingerprints": "picture and sound"}
GAPS = {
    ("shared clip", "unchecked"): "shared clips were not looked for",
    ("shared person", "unchecked"): "shared people were not looked for",
    ("shared person", "few"): "too few people to speak of shared ones",
    ("shortcut", "unchecked"): "shortcuts could not be looked for",
    ("shortcut", "few"): "too few clips or people to speak of shortcuts",
    ("shortcut", "some"): "too few clips to speak of the shortcuts of every method",
}


@dataclass(frozen=True)
class Check:
    """One thing looked for: `state` is found, none (looked for, not there), few (too few to say) or unchecked."""

    what: str
    state: str
    text: str


def checks(found: Mapping[str, Any]) -> list[Check]:
    """People, sources, files and fingerprints shared between splits, then shortcuts by corpus and method."""
    kinds = [kind for kind in SHARED if found["checked"][kind]["why"] != FOLLOW]  # said of the people already
    return [*(_shared(kind, found) for kind in kinds), *_shortcuts(found)]


def _shared(kind: str, found: Mapping[str, Any]) -> Check:
    told = found["checked"][kind]
    leaks = [leak for leak in found["leaks"] if _kind(leak) == kind]
    if leaks:
        return Check(kind, "found", "; ".join(leak["text"] for leak in leaks))
    if not told["on"]:
        return Check(kind, "unchecked", f"not checked: {told['why']}")
    how = f"compared by {told['by']}" if kind in ("files", "fingerprints") else f"column {told['by']}"
    text = f"none shared: checked on {told['on']:,} of {told['of']:,} clips ({how})"
    if "names" in told:
        text += f", {told['names']:,} {'people' if kind == 'people' else 'people or sources'}"
        text += f", {told['fewest']:,} in the smallest part"
        if told["names"] < FEW_GROUPS:
            return Check(kind, "few", f"{text}: too few to say anything of others")
    return Check(kind, "none", text)


def _kind(leak: Mapping[str, Any]) -> str:
    """The check that a leak belongs to."""
    if leak["kind"] == "identity":
        return "sources" if leak["who"] == "group" else "people"
    return {"file": "files", "content": "fingerprints"}[leak["kind"]]


def _shortcuts(found: Mapping[str, Any]) -> list[Check]:
    if not found["shortcuts"]:
        return [Check("shortcuts", "unchecked", f"not checked: {why_none(found['counts']['label'])}")]
    checks = []
    for corpus in dict.fromkeys(s["corpus"] for s in found["shortcuts"]):
        mine = [s for s in found["shortcuts"] if s["corpus"] == corpus]
        for method in dict.fromkeys(s["method"] for s in mine):
            of = [s for s in mine if s["method"] == method]
            worst = max(of, key=lambda s: (s["finding"], s["auc"]))
            name = f"shortcuts of {corpus}" + ("" if method == "all" else f", {method}")
            if any(s["finding"] for s in of):
                count = sum(s["finding"] for s in of)
                text = f"{count} of {len(of)} numbers above {found['allow']:g}; the worst, {measured(worst)}"
                checks.append(Check(name, "found", text))
            elif all(s["few"] for s in of):
                checks.append(
                    Check(name, "few", f"too few to say ({few(worst)}); the worst of {len(of)}, {measured(worst)}")
                )
            else:
                text = (
                    f"none of {len(of)} numbers is above {found['allow']:g} beyond luck; the worst, {measured(worst)}"
                )
                checks.append(Check(name, "none", text))
    return checks


def measured(short: Mapping[str, Any]) -> str:
    """One number's figure, its interval and the clips behind both."""
    people = f" of {short['people']:,} people" if short["people"] else ""
    return (
        f"{means(short['nuisance'])}, picks the fake {100 * short['auc']:.1f} times in 100 (95 %: {100 * short['low']:.1f} to "
        f"{100 * short['high']:.1f}; guessing: 50) on {short['fakes']:,} fakes and {short['reals']:,} reals{people}"
    )


def few(short: Mapping[str, Any]) -> str:
    """What is too few in a comparison, with what it would take."""
    lacks = [f"{short[kind]:,} {kind}" for kind in ("fakes", "reals") if short[kind] < FEW_CLIPS]
    if lacks:
        return f"{' and '.join(lacks)}, {FEW_CLIPS} are needed"
    return f"{short['people']} people, {FEW_GROUPS} are needed"


def headline(found: Mapping[str, Any]) -> tuple[str, str, str]:
    """Tone (good, warn, bad), the sentence that says what was found, and what follows from it."""
    made = checks(found)
    short = [c for c in made if c.what.startswith("shortcuts")]
    shared = [c for c in made if c.what in SHARED]
    if any(c.state == "found" for c in made):
        people = any(c.state == "found" and c.what in ("people", "sources") for c in shared)
        clips = any(c.state == "found" and c.what in ("files", "fingerprints") for c in shared)
        new = f"it shares {' and '.join(['clips'] * clips + ['people or sources'] * people)} with the training"
        head = f"The test is not new: {new}" if people or clips else ""
        if any(c.state == "found" for c in short):
            seen = "Some test clips were seen in training" if clips else "Some people of the test were seen in training"
            outside = "Fakes can be told from real clips without looking at them"
            head = f"{seen}, and fakes can be told without looking" if people or clips else outside
        why = (
            "A deepfake detector can score well on this data without having learned anything about forgery. "
            "Do not trust a score on it until what is listed here is removed."
        )
        return "bad", head, f"{why}{_gaps(made)}"
    sides = {
        "shared clip": _state([c for c in shared if c.what in ("files", "fingerprints")]),
        "shared person": _state([c for c in shared if c.what in ("people", "sources")]),
        "shortcut": "some" if {c.state for c in short} == {"none", "few"} else _state(short),
    }
    clear = [what for what, state in sides.items() if state == "none"]
    if len(clear) == len(sides):
        return (
            "good",
            "No leak and no shortcut found",
            f"Of what was checked nothing gives the answers away.{_gaps(made)}",
        )
    missing = [GAPS[what, state] for what, state in sides.items() if state != "none"]
    if sides["shared clip"] == sides["shared person"] == "unchecked":
        missing[:2] = ["shared clips and people were not looked for"]
    open_ = ", ".join(missing)
    head = f"No {' and no '.join(clear)} found; {open_}" if clear else f"{open_[:1].upper()}{open_[1:]}"
    if all(state == "unchecked" for state in sides.values()):
        head = "There was nothing to check"
    return "warn", head, f"What could not be looked at may still give the answers away.{_gaps(made)}"


def _state(some: Sequence[Check]) -> str:
    """The best of some checks of one thing: any that was made beats none, few beats nothing at all."""
    states = {c.state for c in some}
    return next((state for state in ("none", "few") if state in states), "unchecked")


def _gaps(made: Sequence[Check]) -> str:
    """What was not checked, as a sentence; "" where all was."""
    gaps = [c.what for c in made if c.state == "unchecked" and c.what != "sources"]
    return f" Not checked: {', '.join(gaps)}." if gaps else ""


def unsaid(made: Sequence[Check]) -> str:
    """What the numbers of leaks and shortcuts do not cover, for the end of a line."""
    gaps = [c.what for c in made if c.state == "unchecked" and c.what != "sources"]
    small = [c.what for c in made if c.state == "few"]
    told = [f"{what}: {', '.join(some)}" for what, some in (("not checked", gaps), ("too few to say", small)) if some]
    return "".join(f"; {text}" for text in told)
