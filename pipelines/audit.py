"""What is wrong with a corpus before anyone trains on it: leaks between splits, shortcuts, faults, balance.

    python -m pipelines.audit --corpus KIND:ROOT --html audit.html

Works on the corpus's lists alone; `--media` also compares files that are here by their bytes. The JSON's layout is stable:
rows, distinct, counts, shortcuts, leaks, faults. What it leaves out: it changes nothing and drops nothing.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pipelines import faults, leaks, manifest, nuisances, shortcuts
from pipelines.manifest import ManifestError, Row

COUNTED = ("corpus", "split", "label", "method", "category")
LABELS = {0: "real", 1: "fake", -1: "unknown"}
SHOWN = 12  # nuisances of a corpus in the terminal


def audit(rows: Sequence[Row], media: bool = False, allow: float = shortcuts.ALLOW, seed: int = 0) -> dict[str, Any]:
    """Everything found about `rows`, as plain values for JSON; `media` compares the files that are here by their bytes.

    Beside the stable keys: `allow`, and `findings`, sentences for leaks and for shortcuts above it, worst first.
    """
    files = leaks.hashes(rows) if media else None
    keys = leaks.file_keys(rows, files)
    leaking = leaks.find(rows, files=files)
    short = shortcuts.find(rows, nuisances.listed(rows), seed=seed)
    above = sorted((s for s in short if s.above(allow)), key=lambda s: -s.auc)
    return {
        "rows": len(rows),
        "distinct": len({(row.corpus, key) for row, key in zip(rows, keys, strict=True)}),
        "counts": counts(rows),
        "shortcuts": [{k: v for k, v in asdict(s).items() if k != "sure"} | {"finding": s.above(allow)} for s in short],
        "leaks": [{**asdict(leak), "splits": list(leak.splits), "text": leak.text()} for leak in leaking],
        "faults": faults.summary(faults.of_rows(rows)),
        "allow": allow,
        "findings": [leak.text() for leak in leaking] + [s.text() for s in above],
    }


def counts(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Clips by corpus, split, label, method and category, and by "method and label" as "method/label"; "" is not named."""
    table: dict[str, dict[str, int]] = {}
    for name in COUNTED:
        values = (LABELS[row.label] if name == "label" else getattr(row, name) for row in rows)
        table[name] = dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))
    both = Counter(f"{row.split or 'no split'}/{LABELS[row.label]}" for row in rows)
    table["split_label"] = dict(sorted(both.items()))
    return table


def text(found: Mapping[str, Any]) -> Iterator[str]:
    """The terminal's lines: what there is, leaks, the worst method of each nuisance, faults, and one last line."""
    labels = ", ".join(f"{n:,} {name}" for name, n in found["counts"]["label"].items())
    yield f"{found['rows']:,} rows, {found['distinct']:,} distinct clips: {labels}"
    yield ""
    yield click.style("Leaks between splits", bold=True)
    splits = [name for name in found["counts"]["split"] if name]
    if not found["leaks"]:
        yield "  none found" if len(splits) > 1 else "  nothing to compare: rows name fewer than two splits"
    for leak in found["leaks"]:
        yield click.style(f"  {leak['kind']:9} {leak['text']}", fg="red")
        yield f"            for instance {leak['examples'][0]['what']}"
    yield ""
    yield click.style("Shortcuts: AUC of one number alone (0.5 = guessing; 95 % interval)", bold=True)
    if not found["shortcuts"]:
        yield "  nothing to compare: no numbers are listed, or there are no reals, or no fakes"
    for corpus in dict.fromkeys(s["corpus"] for s in found["shortcuts"]):
        yield f"  {corpus}"
        best: dict[str, Mapping[str, Any]] = {}
        for short in found["shortcuts"]:
            if short["corpus"] == corpus:
                best.setdefault(short["nuisance"], short)
        for name, short in list(best.items())[:SHOWN]:
            every = next((s for s in found["shortcuts"] if _at(s) == (corpus, name, "all")), None)
            overall = f"; all fakes {every['auc']:.3f}" if every and short["method"] != "all" else ""
            line = (
                f"    {name:22} {short['auc']:.3f} ({short['low']:.3f} to {short['high']:.3f})  "
                f"{short['method']}: {short['fakes']:,} fakes, {short['reals']:,} reals{overall}"
            )
            yield click.style(line, fg="red") if short["finding"] else line
    yield ""
    yield click.style("Faults", bold=True)
    if not found["faults"]:
        yield "  none noted"
    for fault in found["faults"]:
        yield f"  {fault['count']:7,} {fault['kind']}: {fault['examples'][0]['id']}: {fault['examples'][0]['text']}"
    yield ""
    above = sum(s["finding"] for s in found["shortcuts"])
    yield f"{len(found['leaks'])} leaks, {above} shortcuts above {found['allow']:g}"


def _at(short: Mapping[str, Any]) -> tuple[str, str, str]:
    return short["corpus"], short["nuisance"], short["method"]


def _write(path: Path, said: str) -> None:
    """The whole file or none of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        part.write_text(said, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ManifestError(f"{path} cannot be written: {error.strerror}; choose another place") from error


@click.command(
    epilog="\b\nExample:\n  python -m pipelines.audit --corpus cmdfd:/data/CMDFD --html audit.html --strict\n"
    "Exit codes: 0 done; 1 with --strict, a leak or a shortcut above --allow; 2 nothing could be read."
)
@click.option("--corpus", "corpora", multiple=True, metavar="KIND:ROOT", help="Corpus to look at; may be repeated.")
@click.option(
    "--manifest", "manifests", multiple=True, metavar="FILE", help="Manifest, CSV or Parquet; may be repeated."
)
@click.option("--media", is_flag=True, help="Also compare the files that are here by their bytes.")
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write everything as JSON; - for standard output.",
)
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write a page with plots."
)
@click.option("--strict", is_flag=True, help="Exit 1 when a leak or a shortcut above --allow is found.")
@click.option(
    "--allow",
    type=click.FloatRange(0.5, 1),
    default=shortcuts.ALLOW,
    show_default=True,
    help="AUC up to which a shortcut is let pass.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of intervals and of the small model's folds.")
def main(corpora, manifests, media, json_file, html, strict, allow, seed):
    """Say what a corpus gives away without picture or sound, and what its test split shares with train."""
    if not corpora and not manifests:
        raise click.UsageError("name a --corpus KIND:ROOT or a --manifest FILE")
    try:
        rows = [row for corpus in corpora for row in manifest.load(corpus)]
        for file in manifests:
            rows += manifest.load(f"csv:{file}")
        found = audit(manifest.with_groups(rows), media, allow, seed)
        if json_file and str(json_file) != "-":
            _write(json_file, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
        if html:
            from pipelines import audit_page

            _write(html, audit_page.page(found))
    except ManifestError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    if str(json_file) == "-":
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        for line in text(found):
            click.echo(line)
    sys.exit(1 if strict and found["findings"] else 0)


if __name__ == "__main__":
    main()
