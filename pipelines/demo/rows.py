"""A demonstration corpus, made if its folder does not exist: a public-domain portrait that says synthetic sentences.

Making it needs the `demo` extra; reading it does not. pipelines/demo describes how it is made, and the README in its
folder what it is for: showing that everything runs.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import Row, read


def rows(root: Path) -> Iterator[Row]:
    """Rows of the corpus at root in the order of its manifest; makes the corpus first if root is missing or empty."""
    manifest = root / "manifest.csv"
    if not manifest.is_file():
        from pipelines.demo.build import build

        try:
            build(root, processes=min(8, len(os.sched_getaffinity(0))), progress=_progress())
        except (RuntimeError, OSError) as error:
            if not manifest.is_file():  # it exists if another process has made it meanwhile
                raise ManifestError(str(error)) from error
    yield from read(manifest)


def _progress() -> Callable[[int, int], None]:
    """A function that updates one line on standard error: clips made, time left."""
    start = time.monotonic()

    def show(made: int, total: int) -> None:
        left = (time.monotonic() - start) * (total - made) / made
        end = "\n" if made == total or not sys.stderr.isatty() else ""
        print(
            f"\rdemo corpus: {made}/{total} clips made, about {left:.0f} s left ", end=end, file=sys.stderr, flush=True
        )

    return show
