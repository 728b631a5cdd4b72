"""Whether the packages of concord-av and of its extras are installed, in versions that were tested.

What an installation is for is not known: an extra that is not there is worth a look, and fails only where the request
needs it. Only the standard library is imported at the start, as in `checks`.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.doctor.machine import Finding, version_of

HERE = Path(__file__).parents[2]  # the checkout, or where packages are installed
DISTRIBUTION = "concord-av"
PARTS = {"predict": "judge single videos", "precompute": "make stores"}  # each includes the one before


def setup(here: Path) -> configparser.ConfigParser:
    """The project's setup.cfg; empty for an installed copy."""
    found = configparser.ConfigParser()
    found.read(here / "setup.cfg")
    return found


def declared(here: Path) -> list[str]:
    """Requirements in the format of a package's metadata: from setup.cfg if it is there, because an editable
    installation's metadata are as old as the installation. Raises PackageNotFoundError."""
    installed = metadata.requires(DISTRIBUTION) or []
    found = setup(here)
    if not found.has_option("options", "install_requires"):
        return installed
    lines = _lines(found["options"]["install_requires"])
    for extra, listed in found["options.extras_require"].items() if "options.extras_require" in found else ():
        for line in _lines(listed):
            wanted, _, marker = line.partition(";")
            lines.append(f'{wanted}; {f"({marker.strip()}) and " if marker else ""}extra == "{extra}"')
    return lines


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]


def wanted(requirements: Iterable[str], extra: str) -> dict[str, Any]:
    """Requirements (`packaging`'s) by name: of the distribution itself for "", else what an extra adds to it."""
    from packaging.requirements import Requirement

    parsed = [Requirement(line) for line in requirements]
    found: dict[str, Any] = {}
    waiting, seen = [extra], {extra}
    while waiting:
        now = waiting.pop()
        for one in parsed:
            here = one.marker is None or one.marker.evaluate({"extra": now})
            alone = now and (one.marker is None or one.marker.evaluate({"extra": ""}))  # of the distribution itself
            if not here or alone:
                continue
            if one.name == DISTRIBUTION:  # an extra that contains others
                waiting += sorted(one.extras - seen)
                seen |= one.extras
            else:
                found[one.name] = one
    return found


def check(requirements: Sequence[str] | None = None, needs: Sequence[str] = (), here: Path = HERE) -> list[Finding]:
    """One finding for the distribution, and one for each part of it that an extra brings. `needs`: extras without which
    the request cannot be fulfilled."""
    try:
        requirements = declared(here) if requirements is None else requirements
    except metadata.PackageNotFoundError:
        says = f"{DISTRIBUTION} is not installed"
        return [Finding("packages", "fail", says, "make install, in the project's folder")]
    try:
        base = wanted(requirements, "")
    except ImportError:
        return [Finding("packages", "fail", "packaging is not installed", "pip install packaging")]
    findings = [_finding("packages", base, "fail", "")]
    told = set(base)
    for extra, does in PARTS.items():
        more = {name: one for name, one in wanted(requirements, extra).items() if name not in told}
        told |= more.keys()
        if more:
            findings.append(_finding(extra, more, "fail" if extra in needs else "warn", does))
    if version_of("opencv-python") and version_of("opencv-contrib-python"):
        says = "opencv-python and opencv-contrib-python use the same folder, so either may be broken"
        again = f"opencv-contrib-python=={version_of('opencv-contrib-python')}"
        how = f"pip uninstall -y opencv-python && pip install --force-reinstall --no-deps {again}"
        findings.append(Finding("opencv", "warn", says, how))
    return findings


def _finding(check: str, wanted: dict[str, Any], level: str, does: str) -> Finding:
    """Compares what is installed with requirements; `does` says what an extra is for, "" for the distribution itself."""
    from concord.extras import install

    wrong, mend = [], []
    for name, one in wanted.items():
        has = version_of(name)
        if has is None or not one.specifier.contains(has, prereleases=True):
            wrong.append(f"{name} {has or 'is missing'} (expected {one.specifier})")
            mend.append(f"'{name}{one.specifier}'")
    if not wrong:
        return Finding(check, "ok", f"{len(wanted)} packages as expected" + (f", to {does}" if does else ""))
    missing = all(line.partition(" ")[2].startswith("is missing") for line in wrong)
    if does and missing:  # somebody who wants no more than to train needs no advice by package
        names = ", ".join(line.partition(" ")[0] for line in wrong)
        return Finding(check, level, f"not here, and needed to {does}: {names}", install(check))
    return Finding(check, level, "; ".join(wrong), f"pip install {' '.join(mend)}")
