"""Precompute teacher labels: video in, a Zarr store of content embeddings and soft labels out; options in, exit code out."""

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import errno
import logging
import os
import sys
from functools import partial

import click

from concord.command import FloatRange, fail, log_to_stderr, say, say_lines, storage_options, told
from concord.errors import ConcordError
from concord.extras import need
from concord.sections import Sectioned
from pipelines.corpora.splits import Rule, of_file
from pipelines.hearing.option import audio_track
from pipelines.job import report
from pipelines.job.request import Config
from pipelines.job.run import run
from pipelines.job.usage import first_line
from pipelines.manifest import protocols
from pipelines.manifest.options import of_protocols
from pipelines.workers.chain import Pools
from store import StoreError
from store.place import is_url, place
from store.similarity import KINDS


class Workers(click.ParamType):
    """N or MIN-MAX worker processes."""

    name = "n|min-max"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        low, _, high = value.partition("-")
        try:
            span = int(low), int(high or low)
        except ValueError:
            span = 0, 0
        if not 1 <= span[0] <= span[1]:
            self.fail(f'"{value}" is not N or MIN-MAX with 1 <= MIN <= MAX', param, ctx)
        return span


class Location(click.ParamType):
    """A path, made absolute, or the URL of a bucket's prefix."""

    name = "path|url"

    def convert(self, value, param, ctx):
        try:
            return value if is_url(place(value)) else str(place(value).path.absolute())
        except StoreError as error:
            self.fail(str(error), param, ctx)


def _names(context, option, value):
    """Names between commas."""
    return tuple(dict.fromkeys(name.strip() for name in value.split(","))) if value else ()


AGAIN = "run the same command again"


def _advice(error):
    """The error that ended a run, in one line, and what to do. An error with exit code 2 says so itself."""
    if isinstance(error, ConcordError) and error.exit_code == 2:
        return str(error)
    if os.strerror(errno.ENOSPC) in str(error):
        return f"a disk is full ({first_line(error)}); free space and run the same command again to continue"
    what = told(error) if isinstance(error, OSError | MemoryError | RecursionError) else first_line(error)
    return what if AGAIN in what else f"{what}; {AGAIN} to continue, or with --debug to see where"


def _rule(splits, protocol, wanted, seed, storage):
    """What decides on splits; None: the corpora do, or the store."""
    if splits:
        return Rule(f"--splits {splits}", partial(of_file, place(splits, storage)))
    if protocol:
        usual = protocols.Options()
        given = [f"--protocol {protocol}"]
        given += [f"--shares {','.join(f'{x:g}' for x in wanted.shares)}"] * (wanted.shares != usual.shares)
        given += [f"--train-on {wanted.train_on}"] * bool(wanted.train_on)
        given += [f"--leave-out {wanted.leave_out}"] * (wanted.leave_out != usual.leave_out)
        given += [f"--seed {seed}"] * bool(seed)
        return Rule(" ".join(given), lambda rows: protocols.splits(rows, protocol, wanted, seed))
    return None


SECTIONS = {
    "Clips": (
        "corpora", "name", "root", "limit", "splits", "protocol", "shares", "leave_out", "train_on", "audio_track",
        "mouth_crops",
    ),
    "Store": ("store", "arrays", "words", "storage_option", "storage_options_file"),
    "Teachers and fit": ("asr", "vsr", "similarity", "fit_from", "refit", "seed"),
    "Workers": ("address", "asr_workers", "vsr_workers", "face_workers"),
    "Runs and failures": ("dry_run", "retry_failed", "clip_timeout", "attempts", "max_failures"),
}  # fmt: skip


@click.command(
    cls=Sectioned,
    sections=SECTIONS,
    epilog="\b\nExample:\n  python precompute.py --corpus grid:/data/grid/s1 --store /data/grid.zarr\n"
    "Exit codes: 0 every clip is done; 3 some clips failed (the ledger names them); 2 nothing was changed;\n"
    "1 the run failed, run it again to continue; 130, 143 stopped by a signal.",
)
@click.option(
    "--corpus", "corpora", multiple=True, metavar="KIND:ROOT", help="Corpus to add; may be given several times."
)
@click.option("--name", help="Corpus name instead of KIND:basename(ROOT); part of every clip's id.")
@click.option("--root", type=Location(), help="Folder or URL that relative paths of a manifest start from.")
@click.option("--store", required=True, type=Location(), help="Zarr store to make or to continue.")
@click.option("--asr", help="Teacher of sound.  [default: the store's, or whisper:tiny.en@3]")
@click.option("--vsr", help="Teacher of lips.  [default: the store's, or lips]")
@click.option(
    "--similarity",
    type=click.Choice(KINDS),
    help="How embeddings are compared.  [default: the store's, or fused, or cca with under 20 real clips]",
)
@click.option(
    "--splits",
    type=Location(),
    metavar="FILE",
    help="Splits of the clips, as pipelines.manifest -o writes them; clips that it does not list are left out.",
)
@click.option(
    "--protocol",
    metavar="NAME",
    help="Make the splits by this protocol (python -m pipelines.manifest --protocol list), before the fit.",
)
@of_protocols
@click.option("--limit", type=click.IntRange(1), help="Only the first N clips.")
@click.option("--asr-workers", type=Workers(), default="1", show_default=True, help="Actors for the ASR teacher.")
@click.option("--vsr-workers", type=Workers(), default="1", show_default=True, help="Actors for the VSR teacher.")
@click.option("--face-workers", type=Workers(), help="Workers that decode and track faces.  [default: one a CPU core]")
@click.option(
    "--address",
    help="Ray cluster: auto or ray://HOST:PORT; local: a Ray of its own.  [default: RAY_ADDRESS, or this machine]",
)
@click.option(
    "--words", is_flag=True, help="Also store transcripts with word times; --dry-run says how long that takes."
)
@click.option(
    "--arrays",
    default="",
    metavar="NAME[,NAME]",
    callback=_names,
    help="Further arrays of a new store: face (whole faces for the student talknet, 6.5 kB a frame).  "
    "[default: what the store has]",
)
@audio_track("what the store has, or auto")
@click.option(
    "--mouth-crops",
    is_flag=True,
    help="Clips of a new store are mouth crops already; take them as they are (needs a --vsr that sees pixels).",
)
@click.option("--refit", is_flag=True, help="Learn the shared space again and rewrite all soft labels.")
@click.option(
    "--seed", default=0, show_default=True, help="Seed of random choices: of a fit (contrast, fused), of --protocol."
)
@click.option("--fit-from", type=Location(), help="Take the fit of another store, or of a file, of the same teachers.")
@click.option("--retry-failed", is_flag=True, help="Try clips again that failed in an earlier run.")
@click.option(
    "--clip-timeout",
    type=FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Time for one clip in one stage, after which it counts as hung.  [default: 300 and four times its length]",
)
@click.option(
    "--attempts",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Times that a clip may crash or hang its worker before it counts as failed.",
)
@click.option("--max-failures", type=FloatRange(0, 1), default=0.0, help="Share of failed clips that still exits 0.")
@storage_options("storage")
@click.option(
    "--dry-run", is_flag=True, help="Read headers only; print how many clips, hours, bytes and minutes to expect."
)
@click.option("--debug", is_flag=True, help="Tracebacks and debug logs.")
def main(
    corpora,
    store,
    fit_from,
    storage,
    splits,
    protocol,
    shares,
    train_on,
    leave_out,
    asr_workers,
    vsr_workers,
    face_workers,
    max_failures,
    debug,
    **options,
):
    """Run both teachers over the clips of a corpus and keep embeddings, projections and soft labels in a Zarr store.

    Run it again and it does only what is missing.
    """
    log_to_stderr("%(asctime)s %(message)s", "%H:%M:%S")
    for package in ("pipelines", "teachers", "store"):
        logging.getLogger(package).setLevel(logging.DEBUG if debug else logging.INFO)
    if splits and protocol:
        raise click.UsageError("--splits reads splits, --protocol makes them: give one of them")
    need("precompute", "ray", "onnxruntime")
    config = Config(
        store=place(store, storage),
        corpora=corpora,
        fit_from=place(fit_from, storage) if fit_from else None,
        split_by=_rule(splits, protocol, protocols.Options(shares, train_on, leave_out), options["seed"], storage),
        pools=Pools(asr_workers, vsr_workers, face_workers),
        **options,
    )
    try:
        summary = run(config)
    except (KeyboardInterrupt, SystemExit) as stop:
        say(f"precompute: stopped; run the same command again to continue {store}", err=True)
        return stop.code if isinstance(stop, SystemExit) else 130
    except Exception as error:
        fail(f"precompute: {_advice(error)}", error.exit_code if isinstance(error, ConcordError) else 1)
    say_lines(report.text(summary, config))
    sys.exit(report.exit_code(summary, max_failures))


if __name__ == "__main__":
    main()
