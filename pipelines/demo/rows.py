"""A demonstration corpus, made when its folder is not there: a public-domain portrait that says synthetic sentences.

Needs the `demo` extra to be made, nothing to be read. See pipelines/demo for how, and the README in its folder for what
it is good for: showing that everything runs.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import Row, read


def rows(root: Path) -> Iterator[Row]:
    """Rows of the corpus at root in the order of its manifest; makes the corpus first where root is missing or empty."""
    manifest = root / "manifest.csv"
    if not manifest.is_file():
        from pipelines.demo.build import build

        try:
            build(root, processes=min(8, len(os.sched_getaffinity(0))), progress=_progress())
        except (RuntimeError, OSError) as error:
            if not manifest.is_file():  # it is there if another process made it meanwhile
                raise ManifestError(str(error)) from error
    yield from read(manifest)


def _progress() -> Callable[[int, int], None]:
    """A function that keeps one line on standard error: clips made, time left."""
    start = time.monotonic()

    def show(made: int, total: int) -> None:
        left = (time.monotonic() - start) * (total - made) / made
        end = "\n" if made == total or not sys.stderr.isatty() else ""
        print(
            f"\rdemo corpus: {made}/{total} clips made, about {left:.0f} s left ", end=end, file=sys.stderr, flush=True
        )

    return show
