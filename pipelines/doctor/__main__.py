"""`python -m pipelines.doctor`: what is missing on this machine, or on any node of a cluster, and the fix.

The checks are in `checks` and `machine` and run in a separate process on each node (`asking`). `nodes` starts them
everywhere and compares what must be equal (code, models, clocks). This module prints one line per check, with the nodes
that have the same result.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import json
import sys
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from concord.command import Command, put, storage_options
from concord.extras import need
from concord.secrets import redact
from concord.text import plain
from pipelines.doctor.asking import HERE, TIMEOUT_S, Answer, asker, findings_of, listed
from pipelines.doctor.checks import Request
from pipelines.doctor.machine import Finding
from pipelines.doctor.nodes import joined, of_cluster

MEDIA = 3  # files of a corpus that every node reads from: the first, one in the middle, the last
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def examine(address: str | None, request: Request, store: str | None = None, corpus: str | None = None) -> list[Answer]:
    """Checks of this machine, or of every node of the cluster at `address`; `store` is the place of a present or future
    store."""
    if address is not None:
        need("precompute", "ray")
        if missing := joined(address):
            return [Answer(HERE, missing)]
    answers = []
    if corpus is not None:
        paths, problem = _media(corpus, request)
        request = replace(request, media=paths)
        answers += [Answer(HERE, problem)] if problem else []
    with _probe(store, request) as (asked, problem):
        answers += [Answer(HERE, problem)] if problem else []
        return answers + (of_cluster(asked) if address is not None else _alone(asked))


def _media(corpus: str, request: Request) -> tuple[tuple[str, ...], Finding | None]:
    """Some files of a corpus."""
    from pipelines.corpora import fields, manifest
    from store import StoreError

    kind, _, root = corpus.partition(":")
    if kind == "demo" and not Path(root).exists():
        return (), Finding("corpus", "warn", f"{root} does not exist; the first run makes it", f"mkdir -p {root}")
    try:
        rows = manifest.load(corpus, options=request.options)
    except (fields.ManifestError, StoreError, OSError) as error:
        return (), Finding("corpus", "fail", str(error), "check KIND:ROOT, and that its disk is mounted here")
    chosen = [rows[k * (len(rows) - 1) // (MEDIA - 1)] for k in range(MEDIA)]
    paths = [path for row in chosen for path in (row.path, row.audio_path) if path]
    return tuple(dict.fromkeys(paths)), None


@contextmanager
def _probe(store: str | None, request: Request) -> Iterator[tuple[Request, Finding | None]]:
    """A small file at the store's place, for the nodes to find; it and the nodes' files are removed at the end."""
    probe, problem = _written(store, request) if store is not None else (None, None)
    try:
        yield (replace(request, probe=str(probe)) if probe else request), problem
    finally:
        if probe:
            for left in probe.parent.names():
                if left.startswith(probe.name):
                    (probe.parent / left).delete()


def _written(store: str, request: Request) -> tuple[Any, Finding | None]:
    """The small file, in the store or next to its future place; or the reason why it could not be written."""
    from store.layout import StoreError
    from store.place import is_url, place

    try:
        folder = place(store, request.options)
        if not is_url(store) and not Path(store).is_dir():
            folder = place(Path(store).absolute().parent)
            if not Path(str(folder)).is_dir():
                return None, Finding("store", "fail", f"{folder} does not exist", f"mkdir -p {folder}")
        probe = folder / f".doctor-{uuid.uuid4().hex[:12]}"
        probe.write(b"doctor")
    except (StoreError, OSError) as error:
        return None, Finding("store", "fail", str(error), "create its bucket, or get permission to write there")
    return probe, None


def _alone(request: Request) -> list[Answer]:
    """The checks of this machine."""
    done = asker()(json.dumps(asdict(replace(request, mark=f"{Path(request.probe).name}.here"))), TIMEOUT_S)
    return [Answer(HERE, finding) for finding in findings_of(done)]


def text(answers: Sequence[Answer]) -> Iterator[str]:
    """One line per check, then the fix; nodes that agree share a line."""
    nodes = len({answer.node for answer in answers} - {"cluster"})
    by_check: dict[str, dict[tuple[str, str, str], list[str]]] = {}
    for answer in answers:
        f = answer.finding
        by_check.setdefault(f.check, {}).setdefault((f.level, f.says, f.mend), []).append(answer.node)
    for check, told in by_check.items():
        good = [(said, names) for (level, said, _), names in told.items() if level == "ok"]
        if good:
            said, names = good[0]
            others = sum(len(more) for _, more in good[1:])
            like = f"; ok on {others} more, {listed(good[1][1])} with {good[1][0]}" if others == 1 else ""
            like = f"; ok on {others} more nodes" if others > 1 else like
            where = f" ({listed(names)})" if nodes > 1 and len(told) > 1 else ""
            yield _row("ok", check, f"{said}{where}{like}")
        for (level, said, mend), names in told.items():
            if level != "ok":
                yield _row(level, check, said + (f" ({listed(names)})" if nodes > 1 else ""))
                yield f"      {'':13} fix:  {plain(redact(mend))}"
    count = Counter(answer.finding.level for answer in answers)
    where = f" on {nodes} nodes" if nodes > 1 else ""
    yield f"{count['ok']} ok, {count['warn']} to look at, {count['fail']} failed{where}"


def _row(level: str, check: str, said: str) -> str:
    return f"{click.style(f'{level:5}', fg=COLOURS[level])} {plain(check):13} {plain(redact(said))}"


@click.command(
    cls=Command,
    epilog="\b\nExample:\n  python -m pipelines.doctor --address auto --store s3://bucket/labels.zarr\n"
    "Exit codes: 0 everything is ok, or has warnings only; 1 something failed.",
)
@click.option(
    "--address",
    envvar="RAY_ADDRESS",
    show_envvar=True,
    help="Check every node of this Ray cluster: auto or ray://HOST:PORT.",
)
@click.option("--store", help="Folder or URL of a present or future store: must be the same place on all nodes.")
@click.option("--corpus", metavar="KIND:ROOT", help="Corpus whose files every node must be able to read.")
@click.option(
    "--teacher", "teachers", multiple=True, metavar="NAME", help="Also load this teacher, as --asr and --vsr name it."
)
@storage_options()
@click.option("--json", "as_json", is_flag=True, help="Print findings as JSON.")
def main(address, store, corpus, teachers, options, as_json):
    """Say what is missing on this machine, or on any node of a cluster, and the fix."""
    needs = ("predict", "precompute") if address is not None or corpus is not None else ()
    answers = examine(address, Request(teachers=teachers, options=options, needs=needs), store, corpus)
    failed = any(answer.finding.level == "fail" for answer in answers)
    if as_json:
        kept = ("check", "level", "says", "mend")
        found = [{"node": a.node, **{k: redact(getattr(a.finding, k)) for k in kept}} for a in answers]
        put(json.dumps({"ok": not failed, "findings": found}, indent=1))
    else:
        for line in text(answers):
            put(line)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
