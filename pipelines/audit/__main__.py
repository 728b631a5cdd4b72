"""Finds problems of a corpus before it is used for training: leaks between splits, shortcuts, faults, balance.

    python -m pipelines.audit --corpus KIND:ROOT --html audit.html
    python -m pipelines.audit --manifest rows.csv --media
    python -m pipelines.audit --store STORE

Without `--media` only lists are read; `--media` decodes the media files; `--store` reads a store's data on its clips
and writes audit.json and nuisances.parquet to its root. The JSON's layout is stable: rows, distinct, counts, shortcuts,
leaks, faults, and soft_labels for a store; `checked` says on how many clips each leak was looked for, or why not. No
clip is dropped.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import store
from concord.command import (
    Command,
    FloatRange,
    fail,
    json_option,
    log_to_stderr,
    put,
    say,
    storage_options,
    told,
)
from pipelines.audit import shortcuts, stored, words
from pipelines.audit.found import Found, audit, keep, of_lists, of_media, of_store
from pipelines.corpora import manifest
from pipelines.corpora.fields import ManifestError
from pipelines.hearing.option import audio_track
from pipelines.tables import kept
from pipelines.workers import isolation
from store import output
from store.output import Output

FOUND = output.marked("a report of pipelines.audit", b'{\n "rows": ', b'\n "distinct": ', b'\n "counts": {')
STYLES: dict[str, dict[str, Any]] = {"": {}, "bold": {"bold": True}, "bad": {"fg": "red"}}


def _check_outputs(json_file: Path | None, html: Path | None, inputs: Sequence[Any]) -> None:
    """Raises output.Refused for an output that would overwrite other data."""
    from pipelines.audit import page as audit_page

    outputs = [Output(html, output.page(audit_page.COMMAND))] if html else []
    if json_file:
        outputs.append(Output("/dev/stdout" if str(json_file) == "-" else json_file, FOUND))
    output.check(outputs, inputs)


@click.command(
    cls=Command,
    epilog="\b\nExample:\n  python -m pipelines.audit --corpus cmdfd:/data/CMDFD --html audit.html --strict\n"
    "Exit codes: 0 done; 1 an output could not be written, or with --strict, a leak or a shortcut above\n"
    "--allow; 2 nothing could be read.",
)
@click.option("--corpus", "corpora", multiple=True, metavar="KIND:ROOT", help="Corpus to audit; may be repeated.")
@click.option(
    "--manifest", "manifests", multiple=True, metavar="FILE", help="Manifest, CSV or Parquet; may be repeated."
)
@click.option("--store", "root", metavar="PATH|URL", help="Store to audit, instead of a corpus or manifest.")
@click.option("--media", is_flag=True, help="Decode the media files, and compare their bytes and content.")
@audio_track()
@storage_options()
@json_option("Write everything as JSON; - for standard output.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write a page with plots."
)
@click.option("--strict", is_flag=True, help="Exit 1 when a leak or a shortcut above --allow is found.")
@click.option(
    "--allow",
    type=FloatRange(0.5, 1),
    default=shortcuts.ALLOW,
    show_default=True,
    help="Largest AUC of a shortcut that is not a finding.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="For intervals and for the folds of the small model."
)
def main(corpora, manifests, root, media, audio_track, options, json_file, html, strict, allow, seed):
    """Report which labels of a corpus can be guessed without picture or sound, and what its test split shares with
    train."""
    if bool(root) == bool(corpora or manifests):
        raise click.UsageError(
            "give --corpus KIND:ROOT or --manifest FILE (both may be repeated), or one --store PATH and nothing else"
        )
    if root and media:
        raise click.UsageError(
            f"--store reads the data in the store; for its media files use --manifest {root}/{kept.MANIFEST} --media"
        )
    if audio_track is not None and not media:
        raise click.UsageError("--audio-track needs --media: without it no sound is decoded")
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
            rows = manifest.with_groups(manifest.with_track(rows, audio_track))
            known = of_media(rows, options) if media else of_lists(rows)
        found = audit(rows, known, allow, seed)
        if root and (warning := keep(reader, found, known.table)):
            say(f"Warning: {warning}", err=True)
    except (ManifestError, store.StoreError, OSError, RecursionError) as error:
        fail(f"Error: {told(error)}", 2)
    except isolation.ChildLost as error:
        fail(f"Error: no decoding process could be started ({error}); run it again", 1)
    lost = _write(json_file, html, found)
    if str(json_file) == "-":
        put(json.dumps(found.to_json(), indent=1))
    else:
        for line in words.lines(found):
            say(line.text, **STYLES[line.tone])
    sys.exit(1 if lost or (strict and found.findings) else 0)


def _write(json_file: Path | None, html: Path | None, found: Found) -> bool:
    """Write the requested outputs; returns whether any could not be written, which a message then says."""
    said: list[tuple[Path, str]] = []
    if json_file and str(json_file) != "-":
        said.append((json_file, json.dumps(found.to_json(), indent=1) + "\n"))
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
