"""Makes a fit with which single videos can be judged without a store: `python -m pipelines.default_fit --manifest FILE`.

It is learned on the real clips of a manifest or of corpora, with precompute's defaults (fused, seed 0), then rounded to
BITS, which changes similarities by a few thousandths and keeps the file under 300 KiB. It goes into the cache under a
name (`teachers.files.fits`), where `student.predict` takes the one called "default" in place of the package's. The same
clips, models and versions give the same bytes. The package's own (`store/similarity/default_fit.npz`) is made by

    python -m pipelines.default_fit --corpus grid:/data/grid_s1 --output store/similarity/default_fit.npz

Limit: from one speaker it learns which lips and voice belong together, but not how probable that is for other people.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

import store
from concord.command import Command, log_to_stderr, say
from concord.extras import need
from concord.text import byte_size, counted
from pipelines.corpora import manifest
from pipelines.errors import UsageError
from pipelines.job import run
from pipelines.job.request import Config
from store import output
from store.place import place
from store.similarity import Fit, fitfile, grounds
from teachers.files import fits

log = logging.getLogger(__name__)

HOLD_OUT, FIRST = 10, 5  # every tenth clip, starting with the sixth: the fit itself holds out the first of each ten
BITS = 7  # mantissa bits kept of a half-precision number's ten


def held_out(rows: list[manifest.Row]) -> list[manifest.Row]:
    """The rows with their splits, if any is val or test; else every tenth of them is marked as test, so that the fit does
    not use it."""
    if any(row.split in ("val", "test") for row in rows):
        return rows
    return [replace(row, split="test" if k % HOLD_OUT == FIRST else "train") for k, row in enumerate(rows)]


def real_rows(corpora: Sequence[str]) -> list[manifest.Row]:
    """The rows of all corpora (KIND:ROOT) that are known to be real. Raises ManifestError, UsageError."""
    rows = [row for corpus in corpora for row in manifest.load(corpus)]
    if len({row.id for row in rows}) < len(rows):
        raise UsageError("two of the manifests and corpora give the same clips; name each once")
    real = [row for row in rows if row.label == 0]
    if not real:
        raise UsageError(
            f"no clip of {', '.join(corpora)} ({counted(len(rows), 'clip')}) is known to be real: give them label 0 in the "
            "manifest, or put them into a folder real/"
        )
    if len(real) < len(rows):
        others = counted(len(rows) - len(real), "clip is", "clips are")
        log.info("%s left out: forged, or without a label", others)
    if not any(row.split in ("", "train") for row in real):
        raise UsageError(
            f"{counted(len(real), 'real clip is', 'real clips are all')} of the splits val and test: a fit learns from train "
            "alone"
        )
    return real


def small(fit: Fit) -> Fit:
    """The fit in half precision, rounded to BITS, to the nearest and ties to even; calibration stays as it is."""
    return replace(
        fit,
        vsr_mean=_rounded(fit.vsr_mean),
        vsr_matrix=_rounded(fit.vsr_matrix),
        asr_mean=_rounded(fit.asr_mean),
        asr_matrix=_rounded(fit.asr_matrix),
        network={name: _rounded(array) for name, array in fit.network.items()},
    )


def _rounded(x: np.ndarray) -> np.ndarray:
    """f2 of `x` with BITS after the leading one. Raises ValueError for a number that f2 cannot hold."""
    low = 10 - BITS
    with np.errstate(over="ignore"):
        half = np.asarray(x, np.float32).astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError("the fit has numbers outside half precision")
    bits = half.view(np.uint16).astype(np.int64)
    rounded = (
        (bits + (1 << (low - 1)) - 1 + ((bits >> low) & 1)) >> low << low
    )  # a carry into the exponent is also correct
    return np.asarray(rounded, np.uint16).view(np.float16)


def make(corpora: Sequence[str], root: Path, file: Path) -> None:
    """Precompute what is missing of the corpora (KIND:ROOT) in a store at `root`, and write the fit of their real clips to
    `file`.

    Raises ManifestError, UsageError, StoreError, TeacherError, RunError.
    """
    output.check([output.Output(file, fitfile.KIND)], [corpus.partition(":")[2] for corpus in corpora])
    rows = held_out(real_rows(corpora))
    exists = (root / "zarr.json").exists()
    if exists:
        _check_same(store.open(root), rows)
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "rows.csv"
        manifest.write(rows, listed)
        run.run(Config(store=place(root), corpora=(f"csv:{listed}",), refit=exists))
    reader = store.open(root)
    if reader.fit is None:
        raise UsageError(
            f"{counted(len(rows), 'real clip')} of {', '.join(corpora)} are too few for a fit, or too few of them show a "
            f"speaking face; {root / 'ledger.parquet'} says what became of each"
        )
    teachers = {side: reader.attrs["teachers"][side] for side in ("asr", "vsr")}
    fitfile.save(file, small(reader.fit), teachers, _note(reader))


def _check_same(reader: store.Reader, rows: Sequence[manifest.Row]) -> None:
    """Raises UsageError if a store has clips that are not among the rows, or has them in another split: they would be
    learned from too."""
    wanted = {row.id: row.split for row in rows}
    clips = zip(reader.clips["id"].astype(str), reader.clips["split"].astype(str), strict=True)
    for name, split in clips:
        if wanted.get(name) != split:
            what = "has it in another split" if name in wanted else "does not have"
            raise UsageError(f"{reader.path} has the clip {name}, which this list {what}: name another --store")


def _note(reader: store.Reader) -> dict[str, Any]:
    """What the file says of the fit: on whom it was learned and calibrated, and clips of which length."""
    note: dict[str, Any] = {k: v for k, v in reader.attrs["similarity"].items() if k != "complete"}
    learned = note["fitted_on"]
    people = learned.get("speakers") or 0
    of = f" of {people:,} speakers" if people > 1 else ""
    note["learned_on"] = f"{learned['clips']} real clips{of} of {', '.join(learned['corpora'])}"
    note["rounded_to_bits"] = BITS
    note["clip_frames"] = reader.typical_length
    return note


def told(fit: Fit, note: dict[str, Any]) -> list[str]:
    """The fit for a person: on whom it was learned, how it does on clips that it has not seen, and for whom it may
    decide."""
    lines = [f"learned on {note['learned_on']}"]
    for corpus in fit.calibration:
        known = grounds.Grounds.of(note.get("calibrated_on", {}).get(corpus))
        auc = note.get("auc", {}).get(corpus, {})
        found = f"{corpus}: own sound against another's, AUC {auc.get('5', 0):.2f} (5 frames), {auc.get('clip', 0):.2f} (clip)"
        lacks = known.lacks_for_strangers()
        lines.append(f"{found}; {f'no verdict on strangers: {lacks}' if lacks else 'it may decide for strangers'}")
    return lines


@click.command(
    cls=Command,
    epilog="Example: python -m pipelines.default_fit --manifest people.csv --store people.zarr --name people",
)
@click.option(
    "--manifest", "manifests", multiple=True, metavar="FILE", help="List of real clips to learn from; may repeat."
)
@click.option("--corpus", "corpora", multiple=True, metavar="KIND:ROOT", help="Real clips to learn from; may repeat.")
@click.option(
    "--store",
    "root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to make the store, or continue it.  [default: a temporary folder]",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write, in place of --name.")
@click.option(
    "--name",
    help="Name in the cache, for predict --fit-from NAME.  [default: default, which predict uses where none is named]",
)
def main(
    manifests: tuple[str, ...], corpora: tuple[str, ...], root: Path | None, output: Path | None, name: str | None
) -> None:
    """Learn a fit from real clips, with which predict judges single videos."""
    log_to_stderr("%(asctime)s %(message)s", "%H:%M:%S")
    logging.getLogger("pipelines").setLevel(logging.INFO)
    if not manifests and not corpora:
        raise click.UsageError("name the real clips to learn from: --manifest FILE or --corpus KIND:ROOT")
    if output and name:
        raise click.UsageError("--output writes a file, --name a fit in the cache: give one of them")
    need("precompute", "ray", "onnxruntime")
    name = name or fits.DEFAULT
    file = output or fits.cached(name)
    if not output:
        file.parent.mkdir(parents=True, exist_ok=True)
    asked = [*(f"csv:{listed}" for listed in manifests), *corpora]
    if root:
        make(asked, root.absolute(), file)
    else:
        with tempfile.TemporaryDirectory() as folder:
            make(asked, Path(folder) / "fit.zarr", file)
    fit, _, note = fitfile.load(file)
    for line in told(fit, note):
        say(line)
    say(f"{file}: {byte_size(file.stat().st_size)}")
    if output:
        say(f"use it with: python -m student.predict VIDEO --teacher-only --fit-from {file}")
    elif name == fits.DEFAULT:
        say("predict now uses it where no fit is named; remove the file to have the package's again")
    else:
        say(f"use it with: python -m student.predict VIDEO --teacher-only --fit-from {name}")


if __name__ == "__main__":
    main()
