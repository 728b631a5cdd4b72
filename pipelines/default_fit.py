"""Makes the fit that the package ships, with which single videos can be judged without a store:
`store/similarity/default_fit.npz`.

    python -m pipelines.default_fit --corpus grid:/data/grid_s1

It is learned on the real clips of a corpus except every tenth, which is held out for checks, with precompute's defaults
(fused, seed 0). Then it is rounded to BITS, which changes similarities by a few thousandths and keeps the file under
300 KiB. The same clips, models and versions give the same bytes. Limit: from one speaker it learns which lips and voice
belong together, but not how probable that is for other people.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import logging
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

import store
from concord.command import Command, log_to_stderr, say
from concord.text import byte_size
from pipelines.corpora import manifest
from pipelines.errors import UsageError
from pipelines.job import run
from pipelines.job.request import Config
from store import output
from store.place import place
from store.similarity import Fit, fitfile

HOLD_OUT, FIRST = 10, 5  # every tenth clip, starting with the sixth: the fit itself holds out the first of each ten
BITS = 7  # mantissa bits kept of a half-precision number's ten


def held_out(rows: list[manifest.Row]) -> list[manifest.Row]:
    """The rows, every tenth of them marked as test, so that the fit does not use it."""
    return [replace(row, split="test" if k % HOLD_OUT == FIRST else "train") for k, row in enumerate(rows)]


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


def make(corpus: str, root: Path, file: Path) -> None:
    """Precompute the missing part of the corpus into a store at `root`, and write its fit to `file`.

    Raises ManifestError, UsageError, StoreError, TeacherError, RunError.
    """
    output.check([output.Output(file, fitfile.KIND)])
    rows = held_out(manifest.load(corpus))
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "rows.csv"
        manifest.write(rows, listed)
        run.run(Config(store=place(root), corpora=(f"csv:{listed}",)))
    reader = store.open(root)
    if reader.fit is None:
        raise UsageError(f"{root} has no fit: {corpus} needs clips that are known to be real")
    note: dict[str, Any] = {k: v for k, v in reader.attrs["similarity"].items() if k != "complete"}
    learned = note["fitted_on"]["clips"]
    note["learned_on"] = f"{learned} real clips of {', '.join(reader.attrs['corpora'])}"
    note["rounded_to_bits"] = BITS
    note["clip_frames"] = reader.typical_length
    teachers = {side: reader.attrs["teachers"][side] for side in ("asr", "vsr")}
    fitfile.save(file, small(reader.fit), teachers, note)


@click.command(
    cls=Command,
    epilog="Example: python -m pipelines.default_fit --corpus grid:/data/grid_s1 --store /data/grid_fit.zarr",
)
@click.option("--corpus", required=True, metavar="KIND:ROOT", help="Real clips to learn from.")
@click.option(
    "--store",
    "root",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to make the store, or continue it.  [default: a temporary folder]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=fitfile.DEFAULT,
    help="File to write.  [default: the package's own]",
)
def main(corpus: str, root: Path | None, output: Path) -> None:
    """Learn the fit that the package ships from the real clips of a corpus."""
    log_to_stderr("%(asctime)s %(message)s", "%H:%M:%S")
    logging.getLogger("pipelines").setLevel(logging.INFO)
    if root:
        make(corpus, root.absolute(), output)
    else:
        with tempfile.TemporaryDirectory() as folder:
            make(corpus, Path(folder) / "fit.zarr", output)
    say(f"{output}: {byte_size(output.stat().st_size)}")


if __name__ == "__main__":
    main()
