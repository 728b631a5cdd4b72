"""The manifest command: corpora in, a manifest, a table of splits or a matched test set out.

    python -m pipelines.manifest --corpus KIND:ROOT --protocol NAME -o splits.csv

Rows are read, merged, moved (--remap) and filtered (--where, --drop-fault); then checked, split, matched or written.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from concord.command import Command, fail, log_to_stderr, say, told
from concord.text import counted
from pipelines.corpora import faults, manifest
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import PARQUET, Row
from pipelines.manifest import check as manifest_check
from pipelines.manifest import edit as manifest_edit
from pipelines.manifest import match, protocols
from pipelines.manifest import summary as manifest_summary
from pipelines.manifest.options import of_protocols
from store import output as outputs
from store.formats.table import to_csv
from store.layout import StoreError
from store.output import Output
from store.place import place

TABLE = outputs.unmarked("a manifest or a table of splits", makes_folder=True)


def check_outputs(output: str | None, picture: str | None, overwrite: bool, inputs: Sequence[str]) -> None:
    """Raises Refused for an output that would overwrite other data."""
    from pipelines.manifest import picture as manifest_picture

    table = [Output(output, TABLE, overwrite)] if output else []
    drawn = [Output(picture, outputs.picture(manifest_picture.COMMAND))] if picture else []
    outputs.check([*table, *drawn], inputs)


def write(file: str, rows: Sequence[Row], weight: Mapping[str, float] | None, whole: bool) -> None:
    """Write the whole manifest, or the splits of its rows; raises ManifestError if the file cannot be written."""
    try:
        if whole:
            manifest.write(rows, file)
        else:
            write_splits(file, rows, weight)
    except OSError as error:
        raise ManifestError(f"{file} cannot be written: {error.strerror}; choose another place") from error
    except ValueError as error:  # a name with a zero byte, or text that is not Unicode
        why = told(error) if isinstance(error, UnicodeError) else str(error)
        raise ManifestError(f"{file} cannot be written: {why}") from error


def write_splits(file: str, rows: Sequence[Row], weight: Mapping[str, float] | None = None) -> None:
    """Write id, split, weight of rows with a split, sorted by id, as CSV or Parquet; `weight` by id, 1 if not given."""
    import pandas as pd

    rows = sorted(rows, key=lambda row: row.id)
    weights = [1.0 if weight is None else weight.get(row.id, 1.0) for row in rows]
    table: dict[str, Sequence[Any]] = {
        "id": [row.id for row in rows],
        "split": [row.split for row in rows],
        "weight": weights,
    }
    parquet = Path(file).suffix.lower() in PARQUET
    place(file).write(pd.DataFrame(table).to_parquet(index=False) if parquet else to_csv(table))


def chosen(rows: list[Row], remap: Sequence[str], where: Sequence[str], drop: Sequence[str]) -> list[Row]:
    """Rows after --remap, --where and --drop-fault; each prints how many rows it changed or kept."""
    for move in remap:
        old, equals, new = move.partition("=")
        if not equals or not old or not new:
            raise click.UsageError(f'--remap takes OLD=NEW, two folders, not "{move}"')
        rows, changed = manifest_edit.remap(rows, old, new)
        say(f"--remap {move}: {counted(changed, 'row')}")
    for condition in where:
        before = len(rows)
        rows = manifest_edit.where(rows, condition)
        say(f"--where {condition}: {len(rows):,} of {counted(before, 'row')} kept")
    for kind in drop:
        before = len(rows)
        rows = manifest_edit.drop_fault(rows, kind)
        say(f"--drop-fault {kind}: {counted(before - len(rows), 'row')} dropped")
    if not rows:
        raise ManifestError("no row is left; use fewer conditions")
    return rows


def validate(corpora: Sequence[str], files: Sequence[str], remap, where, drop) -> int:
    """Print all faults; returns the exit code: 0 clean, 2 unusable, 3 usable with faults.

    Contradictions in a manifest's columns are reported for the whole file, regardless of --where and --drop-fault.
    """
    looked = [manifest_check.of_file(file) for file in files]
    if bad := [fault for some, _ in looked for fault in some]:
        for fault in faults.summary(bad):
            say(f"{fault.count:,} {fault.kind}: {fault.examples[0].text}")
        say(f"unusable: {len(bad):,} values to correct", err=True)
        return 2
    rows = chosen(manifest_edit.load(corpora, files), remap, where, drop)
    found, far = manifest_check.check(rows)
    found += [fault for _, some in looked for fault in some]
    for fault in faults.summary(found):
        say(f"{fault.count:,} {fault.kind}")
        for example in fault.examples[:3]:
            say(f"    {example.id}: {example.text}")
    if far:
        say(f"{counted(far, 'clip is in a bucket', 'clips are in buckets')}; whether they exist was not checked")
    faulty = len({fault.id for fault in found})
    usable = f"{counted(len(rows), 'row')} can be used, {faulty:,} of them with faults"
    say(usable if found else counted(len(rows), "clean row"))
    return 3 if found else 0


def list_protocols(ctx: click.Context, _, value: str | None) -> str | None:
    """`--protocol list` needs no corpus."""
    if value == "list":
        for line in manifest_summary.table([[name, p.text] for name, p in protocols.PROTOCOLS.items()], 2):
            say(line)
        ctx.exit()
    return value


@click.command(
    cls=Command,
    epilog="\b\nExamples:\n"
    "  python -m pipelines.manifest --corpus fakeavceleb:/data/FakeAVCeleb -o rows.parquet\n"
    "  python -m pipelines.manifest --manifest rows.parquet --remap /data=/mnt/data --validate\n"
    "  python -m pipelines.manifest --manifest rows.parquet --protocol favc-70-30-clean -o splits.csv\n"
    "  python -m pipelines.manifest --corpus cmdfd:/data/CMDFD --where method=real,Wav2Lip --match -o test.csv\n"
    "Exit codes: 0 done (with --validate: clean); 2 unusable, nothing was written; 3 --validate found faults.",
)
@click.option("--corpus", "corpora", multiple=True, metavar="KIND:ROOT", help="Corpus to read; may be repeated.")
@click.option(
    "--manifest", "files", multiple=True, metavar="FILE", help="Manifest, CSV or Parquet, to read; may be repeated."
)
@click.option("-o", "--output", metavar="FILE", help="Manifest or splits to write, CSV or Parquet by its suffix.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file of -o, unless it is an input.")
@click.option("--remap", multiple=True, metavar="OLD=NEW", help="Folder that was moved; may be repeated.")
@click.option(
    "--where",
    multiple=True,
    metavar="FIELD=VALUE,...",
    help="Keep these rows; != drops them. If repeated, all conditions must hold.",
)
@click.option("--drop-fault", "drop", multiple=True, metavar="KIND", help="Drop rows with this fault; may be repeated.")
@click.option("--validate", "checking", is_flag=True, help="Report faults of the rows, write nothing.")
@click.option(
    "--protocol", metavar="NAME", callback=list_protocols, help='Make splits by this protocol; "list" prints them.'
)
@of_protocols
@click.option(
    "--match",
    "matching",
    is_flag=False,
    flag_value=match.DEFAULT,
    metavar="NAME,...",
    help=f"Match reals and fakes of the test in these nuisances; without a name, in {match.DEFAULT}.",
)
@click.option("--by", type=click.Choice(["pairs", "weights"]), default="pairs", show_default=True, help="How to match.")
@click.option("--nuisances", "measured", metavar="FILE", help="Measured nuisances: a table with a column id.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of random choices.")
@click.option("--picture", metavar="FILE.png|.svg", help="Draw clips by method and split, and their lengths.")
def main(
    corpora,
    files,
    output,
    overwrite,
    remap,
    where,
    drop,
    checking,
    protocol,
    shares,
    train_on,
    leave_out,
    matching,
    by,
    measured,
    seed,
    picture,
):
    """Make, check, merge and filter manifests; make splits by named protocols and matched test sets."""
    log_to_stderr()
    if not corpora and not files:
        raise click.UsageError("name a --corpus KIND:ROOT or a --manifest FILE")
    if checking and (protocol or matching is not None or output or picture):
        raise click.UsageError("--validate only checks; omit --protocol, --match, --output and --picture")
    if picture and Path(picture).suffix.lower() not in (".png", ".svg"):
        raise click.UsageError(f"--picture draws .png or .svg, not {picture}")
    try:
        if checking:
            sys.exit(validate(corpora, files, remap, where, drop))
        read = [*files, *(corpus.partition(":")[2] for corpus in corpora), *([measured] if measured else [])]
        check_outputs(output, picture, overwrite, read)
        rows = manifest_edit.load(corpora, files)
        if overwrite:
            check_outputs(output, picture, overwrite, [p for row in rows for p in (row.path, row.audio_path) if p])
        rows = chosen(rows, remap, where, drop)
        weight = None
        if protocol:
            made = protocols.splits(rows, protocol, protocols.Options(shares, train_on, leave_out), seed)
            tell(manifest_summary.protocol(rows, made))
            rows = made.rows(rows)
        elif matching is None:
            tell(manifest_summary.summary(rows))
            tell(manifest_summary.faulty(rows))
        if matching is not None:
            rows, weight = matched(rows, matching, by, measured, seed, bool(protocol))
        if output:
            write(output, rows, weight, whole=protocol is None and matching is None)
            say(f"wrote {counted(len(rows), 'row')} to {output}")
        if picture:
            from pipelines.manifest import picture as manifest_picture

            manifest_picture.draw(rows, picture)
            say(f"drew {picture}")
    except (ManifestError, StoreError, OSError, RecursionError) as error:
        fail(f"Error: {told(error)}", 2)


def matched(
    rows: list[Row], matching: str, by: str, measured: str | None, seed: int, split: bool
) -> tuple[list[Row], dict[str, float]]:
    """Rows with the test's reals and fakes matched, and their weights; without splits every row is the test's."""
    test = [row for row in rows if row.split == "test"] if split else rows
    if not test:
        raise ManifestError("there is no test clip to match; choose a protocol that has some")
    asked = [name.strip() for name in matching.split(",") if name.strip()]
    if not asked:
        raise click.UsageError("--match takes names of nuisances, such as length_difference,duration")
    weight, lines = match.match(test, match.table_of(test, measured), asked, by, seed)
    tell(manifest_summary.matched(lines, asked))
    if not weight:
        raise ManifestError(f"no test clips with equal {matching} are left, so nothing was written")
    kept = [replace(row, split="test") for row in test if row.id in weight]
    return [row for row in rows if split and row.split != "test"] + kept, weight


def tell(lines: Iterable[str]) -> None:
    """Lines to the terminal."""
    for line in lines:
        say(line)


if __name__ == "__main__":
    main()
