"""What is wrong with a corpus before anyone trains on it: leaks between splits, shortcuts, faults, balance.

    python -m pipelines.audit --corpus KIND:ROOT --html audit.html
    python -m pipelines.audit --manifest rows.csv --media
    python -m pipelines.audit --store STORE

Lists alone need no media; `--media` decodes the files that are here; `--store` reads what a store holds of its clips and leaves
audit.json and nuisances.parquet in its root. The JSON's layout is stable: rows, distinct, counts, shortcuts, leaks, faults, and
soft_labels of a store; `checked` says on how many clips each leak was looked for, or why not. It drops no clip.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import store
from concord.command import Command, FloatRange, fail, log_to_stderr, put, say, storage_options, told
from concord.text import plain_all
from pipelines.audit import coverage, fingerprint, leaks, measure, nuisances, shortcuts, stored
from pipelines.audit import words as audit_words
from pipelines.corpora import faults, manifest
from pipelines.corpora.faults import Fault
from pipelines.corpora.fields import LABELS, ManifestError
from pipelines.corpora.manifest import Row
from pipelines.tables import kept
from pipelines.ui import progress
from pipelines.workers import isolation
from store import output
from store.output import Output

if TYPE_CHECKING:
    import pandas as pd

COUNTED = ("corpus", "split", "label", "method", "category")
FOUND = output.marked("a report of pipelines.audit", b'{\n "rows": ', b'\n "distinct": ', b'\n "counts": {')
SHOWN = 12  # nuisances of a corpus in the terminal


@dataclass(frozen=True)
class Known:
    """What is known of the clips beside their rows: a table of numbers, content fingerprints, file hashes, faults."""

    table: pd.DataFrame
    prints: Sequence[fingerprint.Print | None] | None = None
    files: Sequence[str | None] | None = None
    faults: Sequence[Fault] = ()
    soft_labels: Mapping[str, Sequence[int]] | None = None


def of_lists(rows: Sequence[Row]) -> Known:
    """What the corpus's own lists say."""
    return Known(nuisances.listed(rows))


def of_media(rows: Sequence[Row], options: Mapping[str, str] | None = None, workers: int | None = None) -> Known:
    """What files that are here say when they are decoded; `options` are for media in buckets."""
    found = []
    with progress.shown(progress.Pass("media", len(rows), unit="clips")) as show:
        for one in measure.run(rows, workers, options):
            found.append(one)
            show.advance(1)
    return Known(
        _filled(measure.table(found), nuisances.listed(rows)),
        [one.print for one in found],
        leaks.hashes(rows),
        [fault for one in found for fault in one.faults],
    )


def of_store(rows: Sequence[Row], reader: store.Reader) -> Known:
    """What a store holds of its clips, `rows` being `stored.rows`."""
    found = stored.from_store(reader)
    table = _filled(found.table, nuisances.listed(rows))
    return Known(table, found.prints, None, found.faults, found.soft_labels)


def _filled(table: pd.DataFrame, listed: pd.DataFrame) -> pd.DataFrame:
    """The table with the list's columns where it knows nothing at all; no column mixes what is measured and what is listed."""
    known = [name for name in listed if listed[name].notna().any()]
    return table.assign(**{name: listed[name] for name in known if name not in table or table[name].isna().all()})


def audit(
    rows: Sequence[Row],
    media: bool = False,
    allow: float = shortcuts.ALLOW,
    seed: int = 0,
    known: Known | None = None,
) -> dict[str, Any]:
    """Everything found about `rows`, as plain values for JSON; `media` decodes the files that are here, `known` is given.

    Beside the stable keys: `allow`, and `findings`, sentences for leaks and for shortcuts above it, worst first.
    """
    known = known or (of_media(rows) if media else of_lists(rows))
    keys = leaks.file_keys(rows, known.files)
    prints = fingerprint.keys(known.prints, [row.label for row in rows]) if known.prints is not None else None
    leaking = leaks.find(rows, prints=prints, files=known.files)
    short = shortcuts.find(rows, known.table, seed=seed)
    above = sorted((s for s in short if s.above(allow)), key=lambda s: -s.auc)
    found = {
        "rows": len(rows),
        "distinct": len({(row.corpus, key) for row, key in zip(rows, keys, strict=True)}),
        "counts": counts(rows),
        "shortcuts": [
            {k: v for k, v in asdict(s).items() if k != "sure"} | {"finding": s.above(allow), "few": s.few}
            for s in short
        ],
        "checked": coverage.checked(rows, prints, known.files),
        "leaks": [{**asdict(leak), "splits": list(leak.splits), "text": leak.text()} for leak in leaking],
        "faults": faults.summary([*faults.of_rows(rows), *known.faults]),
        "allow": allow,
        "findings": [leak.text() for leak in leaking] + [s.text() for s in above],
    }
    if known.soft_labels is not None:
        found["soft_labels"] = {"bins": stored.BINS, "methods": dict(known.soft_labels)}
    return found


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
    made = audit_words.checks(found)
    for check in made:
        if check.what in audit_words.SHARED and check.state != "found":
            yield f"  {check.what:12} {check.text}"
    for leak in found["leaks"]:
        yield click.style(f"  {leak['kind']:9} {leak['text']}", fg="red")
        yield f"            for instance {leak['examples'][0]['what']}"
    yield ""
    yield click.style("Shortcuts: AUC of one number alone (0.5 = guessing; 95 % interval)", bold=True)
    if not found["shortcuts"]:
        yield f"  {shortcuts.why_none(found['counts']['label'])}"
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
            few = f"; too few to say: {audit_words.few(short)}" if short["few"] and not short["finding"] else ""
            yield click.style(line, fg="red") if short["finding"] else f"{line}{few}"
    yield ""
    yield click.style("Faults", bold=True)
    if not found["faults"]:
        yield "  none noted"
    for fault in found["faults"]:
        yield f"  {fault['count']:7,} {fault['kind']}: {fault['examples'][0]['id']}: {fault['examples'][0]['text']}"
    if "soft_labels" in found:
        yield ""
        yield click.style("Soft labels: mean agreement of lips and voice, and how many frames have one", bold=True)
        for name, count in found["soft_labels"]["methods"].items():
            total = sum(count)
            mean = sum((k + 0.5) * n for k, n in enumerate(count)) / (len(count) * total) if total else float("nan")
            yield (
                f"  {name:22} {mean:.2f} over {total:,} frames" if total else f"  {name:22} none; the store has no fit"
            )
    yield ""
    above = sum(s["finding"] for s in found["shortcuts"])
    yield audit_words.headline(found)[1]
    yield f"{len(found['leaks'])} leaks, {above} shortcuts above {found['allow']:g}{audit_words.unsaid(made)}"


def _at(short: Mapping[str, Any]) -> tuple[str, str, str]:
    return short["corpus"], short["nuisance"], short["method"]


def _check_outputs(json_file: Path | None, html: Path | None, inputs: Sequence[Any]) -> None:
    """Raises output.Refused for an output that would take something away."""
    from pipelines.audit import page as audit_page

    outputs = [Output(html, output.page(audit_page.COMMAND))] if html else []
    if json_file:
        outputs.append(Output("/dev/stdout" if str(json_file) == "-" else json_file, FOUND))
    output.check(outputs, inputs)


@click.command(
    cls=Command,
    epilog="\b\nExample:\n  python -m pipelines.audit --corpus cmdfd:/data/CMDFD --html audit.html --strict\n"
    "Exit codes: 0 done; 1 with --strict, a leak or a shortcut above --allow; 2 nothing could be read.",
)
@click.option("--corpus", "corpora", multiple=True, metavar="KIND:ROOT", help="Corpus to look at; may be repeated.")
@click.option(
    "--manifest", "manifests", multiple=True, metavar="FILE", help="Manifest, CSV or Parquet; may be repeated."
)
@click.option("--store", "root", metavar="PATH|URL", help="Store to look at, in place of a corpus or manifest.")
@click.option("--media", is_flag=True, help="Decode the files that are here, and compare their bytes and content.")
@storage_options()
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
    type=FloatRange(0.5, 1),
    default=shortcuts.ALLOW,
    show_default=True,
    help="AUC up to which a shortcut is let pass.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of intervals and of the small model's folds.")
def main(corpora, manifests, root, media, options, json_file, html, strict, allow, seed):
    """Say what a corpus gives away without picture or sound, and what its test split shares with train."""
    if bool(root) == bool(corpora or manifests):
        raise click.UsageError("name a --corpus KIND:ROOT, a --manifest FILE or a --store PATH, and a store alone")
    if root and media:
        raise click.UsageError(
            f"--store reads what the store holds; for its files use --manifest {root}/{kept.MANIFEST} --media"
        )
    log_to_stderr("%(asctime)s %(message)s", "%H:%M:%S")
    try:
        listed = [corpus.partition(":")[2] for corpus in corpora]
        _check_outputs(json_file, html, [*manifests, *listed])
        if root:
            reader = store.open(root, options)
            rows = manifest.with_groups(stored.rows(reader))
            known = of_store(rows, reader)
        else:
            rows = [row for corpus in corpora for row in manifest.load(corpus, options=options)]
            for file in manifests:
                rows += manifest.load(f"csv:{file}", options=options)
            rows = manifest.with_groups(rows)
            known = of_media(rows, options) if media else of_lists(rows)
        found = audit(rows, allow=allow, seed=seed, known=known)
        if root and (warning := stored.keep(reader, found, known.table)):
            say(f"Warning: {warning}", err=True)
    except (ManifestError, store.StoreError, OSError, RecursionError) as error:
        fail(f"Error: {told(error)}", 2)
    except isolation.ChildLost as error:
        fail(f"Error: no process that decodes could be started ({error}); run it again", 1)
    lost = _write(json_file, html, found)
    if str(json_file) == "-":
        put(json.dumps(found, indent=1))
    else:
        for line in text(plain_all(found)):
            put(line)
    sys.exit(1 if lost or (strict and found["findings"]) else 0)


def _write(json_file: Path | None, html: Path | None, found: Mapping[str, Any]) -> bool:
    """Write what was asked for; whether any of it could not be written, which a line then says."""
    said: list[tuple[Path, str]] = []
    if json_file and str(json_file) != "-":
        said.append((json_file, json.dumps(found, indent=1) + "\n"))
    if html:
        from pipelines.audit import page as audit_page

        said.append((html, audit_page.page(found)))
    lost = False
    for path, told_there in said:
        try:
            output.write(path, told_there.encode("utf-8", "backslashreplace"))
        except OSError as error:
            say(f"Error: {told(error)}", err=True)
            lost = True
    return lost


if __name__ == "__main__":
    main()
