"""How answers hold for faces, voices and forgeries that nobody fitted: one page and one JSON over any manifest.

    python -m benchmarks.wild --manifest clips.csv [--store clips.zarr] [--fit-from FIT] [--checkpoint RUN] [--json FILE]

Own sound against the sound of others and against shifts; what `predict` decides of real clips and of made swaps; forged
against real clips by method and within matched sets, beside the strongest trivial number. The manifest is read like
`--corpus csv:FILE`; its columns `identities` and `source` say who is independent and what is matched. With --store the
evidence comes from a store of the same clips, and no video is decoded.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import logging
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import click

from concord.command import Command, json_option, log_to_stderr, put
from store import output
from store.output import Output

JSON = output.marked("figures of benchmarks.wild", b'{\n  "format": "concord-av wild"')


@click.command(
    cls=Command,
    epilog="\b\nExample:\n  python -m benchmarks.wild --manifest wild.csv --store wild.zarr --json wild.json\n"
    "Exit codes: 0 all clips were read; 3 some were not, and the page says why; 2 none was, or wrong options; 1 failed.",
)
@click.option(
    "--manifest",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="CSV or Parquet: path, label; method, identities, corpus, source where known.",
)
@click.option("--store", help="Store of the same clips (folder or URL), joined by path; no video is decoded then.")
@click.option("--fit-from", help="Store or file whose fit to use.  [default: the store's, or as predict takes it]")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="--output folder of a training run: judge it, too.")
@click.option("--corpus", help="As predict's --corpus: states that the videos are from this calibrated corpus.")
@json_option("Write every figure as JSON; - for standard output, without the page.")
@click.option("--limit", type=click.IntRange(1), help="At most so many clips of each corpus and method.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the choice of other sounds.")
def main(
    manifest: Path, store: str | None, fit_from: str | None, checkpoint: Path | None, corpus: str | None,
    json_file: Path | None, limit: int | None, seed: int,
) -> None:  # fmt: skip
    """Measure a fit, or a student, on people and forgeries that it has not learned from."""
    from benchmarks.strangers import page, report
    from pipelines.ui import progress
    from student.config import to_json

    log_to_stderr()
    logging.getLogger("pipelines.ui.progress").setLevel(logging.INFO)
    if json_file:
        inputs = [str(one) for one in (manifest, fit_from, checkpoint) if one]
        output.check([Output("/dev/stdout" if str(json_file) == "-" else json_file, JSON)], inputs)
    asked = report.Asked(manifest, store, fit_from, checkpoint, corpus, limit, seed)
    with ExitStack() as bars:

        def advance(what: str, count: int) -> Callable[[], None]:
            bars.close()
            return bars.enter_context(progress.shown(progress.Pass(what, count, unit=what))).advance

        found = report.measure(asked, advance)
    text = to_json(found)
    if json_file and str(json_file) != "-":
        output.write(json_file, text)
    if str(json_file) == "-":
        put(text.decode().rstrip("\n"))
    else:
        page.show(found)
    sys.exit(3 if found["rests_on"]["lost"]["clips"] else 0)


if __name__ == "__main__":
    main()
