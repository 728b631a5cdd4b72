"""Peak memory of precompute over few and over many clips: it must not grow with the corpus.

    python -m benchmarks.memory --corpus grid:/data/grid_s1

Every quarter of a second the resident memory of driver, Ray and all workers is added up: RSS, in which memory that processes
share counts for each of them, and PSS, in which it counts once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import psutil

ROOT = Path(__file__).parent.parent
EVERY_S = 0.25


def peak(command: list[str]) -> tuple[float, float, float]:
    """Highest RSS and PSS of a command and all that it starts, in GiB, and its seconds; raises where it fails."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("RAY_ADDRESS", None)
    begun, rss, pss = time.monotonic(), 0.0, 0.0
    with tempfile.TemporaryFile() as log:
        run = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        root = psutil.Process(run.pid)
        while run.poll() is None:
            sums = [0.0, 0.0]
            for process in [root, *root.children(recursive=True)]:
                try:
                    found = process.memory_full_info()
                except (psutil.NoSuchProcess, psutil.AccessDenied):  # it ended meanwhile
                    continue
                sums[0] += found.rss
                sums[1] += found.pss
            rss, pss = max(rss, sums[0]), max(pss, sums[1])
            time.sleep(EVERY_S)
        if run.returncode:
            log.seek(0)
            raise click.ClickException(log.read().decode(errors="replace")[-2000:])
    return rss / 2**30, pss / 2**30, time.monotonic() - begun


@click.command()
@click.option("--corpus", required=True, metavar="KIND:ROOT")
@click.option("--clips", "counts", multiple=True, type=int, default=(150, 600), show_default=True)
def main(corpus: str, counts: tuple[int, ...]) -> None:
    """Print peaks and their ratio to the first. Example: see the module."""
    first = None
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="memory-") as folder:
            command = [sys.executable, str(ROOT / "precompute.py"), "--corpus", corpus, "--limit", str(count)]
            rss, pss, spent = peak([*command, "--similarity", "cca", "--store", str(Path(folder) / "s.zarr")])
        first = first or (rss, pss)
        click.echo(
            f"{count:6d} clips: peak RSS {rss:.2f} GiB ({rss / first[0]:.2f} of the first), PSS {pss:.2f} GiB "
            f"({pss / first[1]:.2f}), {spent:.0f} s"
        )


if __name__ == "__main__":
    main()
