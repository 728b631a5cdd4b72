"""`python -m pipelines.doctor`: what is missing on this machine, or on any node of a cluster, and the command that mends it.

The checks themselves are in pipelines.doctor.checks and run in a process of their own on each node. This module starts them,
compares what must be the same everywhere (code, models, clocks), and prints one line a check, with the nodes that share an
answer.
"""

from __future__ import annotations

from store.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from pipelines.doctor import checks
from pipelines.doctor.checks import Finding, Request
from store.command import Command, put, storage_options
from store.formats.text import plain
from store.place.secrets import redact

TIMEOUT_S = 300.0  # of the checks of one node: a cold disk takes a minute to import torch
REACH_S = 10.0  # of a cluster's address
SKEW_S, BAD_SKEW_S = 2.0, 30.0  # a store's lease counts in minutes, and S3 refuses requests a quarter of an hour off
SAMPLES = 3  # of a node's clock; the quickest answer counts
MEDIA = 3  # files of a corpus that every node reads from: the first, one in the middle, the last
NAMES = 4  # nodes named in one line
HERE = "this machine"
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True)
class Answer:
    """A finding and whose it is: a node's, or the cluster's as a whole."""

    node: str
    finding: Finding


def examine(address: str | None, request: Request, store: str | None = None, corpus: str | None = None) -> list[Answer]:
    """Checks of this machine, or of every node of the cluster at `address`; `store` is where one is or will be."""
    answers = []
    if corpus is not None:
        paths, problem = _media(corpus, request)
        request = replace(request, media=paths)
        answers += [Answer(HERE, problem)] if problem else []
    with _probe(store, request) as (asked, problem):
        answers += [Answer(HERE, problem)] if problem else []
        return answers + (_cluster(address, asked) if address is not None else _alone(asked))


def _media(corpus: str, request: Request) -> tuple[tuple[str, ...], Finding | None]:
    """Some files of a corpus."""
    from pipelines.corpora import manifest
    from store import StoreError

    kind, _, root = corpus.partition(":")
    if kind == "demo" and not Path(root).exists():
        return (), Finding("corpus", "warn", f"{root} does not exist; the first run makes it", f"mkdir -p {root}")
    try:
        rows = manifest.load(corpus, options=request.options)
    except (manifest.ManifestError, StoreError, OSError) as error:
        return (), Finding("corpus", "fail", str(error), "check KIND:ROOT, and that its disk is mounted here")
    chosen = [rows[k * (len(rows) - 1) // (MEDIA - 1)] for k in range(MEDIA)]
    paths = [path for row in chosen for path in (row.path, row.audio_path) if path]
    return tuple(dict.fromkeys(paths)), None


@contextmanager
def _probe(store: str | None, request: Request) -> Iterator[tuple[Request, Finding | None]]:
    """A small file where the store is or will be, for the nodes to find; it and theirs are gone at the end."""
    probe, problem = _written(store, request) if store is not None else (None, None)
    try:
        yield (replace(request, probe=str(probe)) if probe else request), problem
    finally:
        if probe:
            for left in probe.parent.names():
                if left.startswith(probe.name):
                    (probe.parent / left).delete()


def _written(store: str, request: Request) -> tuple[Any, Finding | None]:
    """The small file, in the store or beside where it will be; or why there is none."""
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
        return None, Finding("store", "fail", str(error), "make its bucket, or get the right to write there")
    return probe, None


def _alone(request: Request) -> list[Answer]:
    """The checks of this machine."""
    done = _asking()(json.dumps(asdict(replace(request, mark=f"{Path(request.probe).name}.here"))), TIMEOUT_S)
    return [Answer(HERE, finding) for finding in _read(done)]


def _asking() -> Callable[[str, float], tuple[int, str, str]]:
    """A function that runs the checks where it is called: (exit code, standard output, standard error). It is defined in here
    so that it travels by value: a node without our package must be able to say so."""

    def ask(request: str, timeout_s: float) -> tuple[int, str, str]:
        import os
        import subprocess
        import sys

        # Ray hides a node's GPUs from tasks that asked for none.
        env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        command = [
            sys.executable,
            "-P",
            "-m",
            "pipelines.doctor.checks",
        ]  # what is installed, not what lies in the folder
        try:
            done = subprocess.run(command, input=request, env=env, capture_output=True, text=True, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return 1, "", f"no answer within {timeout_s:.0f} s"
        return done.returncode, done.stdout, done.stderr

    return ask


def _read(done: tuple[int, str, str]) -> list[Finding]:
    """Findings of the checks, or the one that they could not be made."""
    status, output, errors = done
    try:
        return [Finding(**finding) for finding in json.loads(output)]
    except (ValueError, TypeError):
        last = next((line for line in reversed(errors.splitlines()) if line.strip()), f"ended with {status}")
        return [Finding("checks", "fail", f"the checks did not run: {last}", "make install, in the project's folder")]


def _cluster(address: str, request: Request) -> list[Answer]:
    """The checks of every node, and what concerns them all."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from pipelines.workers import cluster

    try:
        _reach(address)
        cluster.connect(address)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        says = f"no cluster at {address}: {' '.join(str(error).split())[:300]}"
        return [Answer(HERE, Finding("cluster", "fail", says, "ray up cluster.yaml, or ray start --head"))]
    nodes = [node for node in ray.nodes() if node["Alive"]]
    ask: Any = ray.remote(num_cpus=0, max_retries=0)(_asking())
    clock: Any = ray.remote(num_cpus=0, max_retries=0)(_clock())
    asked = {}
    for name, node in zip(_named(nodes), nodes, strict=True):
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        own = replace(
            request,
            object_store=int(node["Resources"].get("object_store_memory", request.object_store)),
            mark=f"{Path(request.probe).name}.{node['NodeID']}",
        )
        reference = ask.options(scheduling_strategy=there).remote(json.dumps(asdict(own)), TIMEOUT_S)
        asked[name] = (reference, own, clock.options(scheduling_strategy=there))
    answers = []
    for name, (reference, own, there) in asked.items():
        try:
            found = _read(ray.get(reference, timeout=TIMEOUT_S + 60))
            found.append(_skew(partial(_now, there)))
        except (ray.exceptions.RayError, TimeoutError) as error:
            says = f"the node does not answer: {' '.join(str(error).split())[:300]}"
            found = [Finding("node", "fail", says, "ray status; then ray up cluster.yaml")]
        answers += [Answer(name, finding) for finding in _seen(own, found)]
    return [_size(nodes), *answers, *_same(answers), _dashboard()]


def _now(clock: Any) -> float:
    import ray

    return ray.get(clock.remote(), timeout=60)


def _reach(address: str) -> None:
    """Raises OSError where nothing listens at a cluster's address: Ray itself would go on trying for minutes."""
    import socket

    from ray._private.services import canonicalize_bootstrap_address_or_die

    direct = address.partition("ray://")[2] or canonicalize_bootstrap_address_or_die(address)
    host, _, port = direct.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()


def _clock() -> Callable[[], float]:
    """A node's clock, in seconds; defined in here for the reason that `_asking` gives."""

    def now() -> float:
        import time

        return time.time()

    return now


def _skew(read: Callable[[], float]) -> Finding:
    """How far a clock is from this machine's."""
    best = (float("inf"), 0.0)
    for _ in range(SAMPLES):
        before = time.time()
        theirs = read()
        after = time.time()
        best = min(best, (after - before, theirs - (before + after) / 2))
    took, off = best
    says = f"{off:+.2f} s from this machine's, measured within {took / 2:.2f} s"
    if abs(off) - took / 2 > SKEW_S:
        level = "fail" if abs(off) - took / 2 > BAD_SKEW_S else "warn"
        return Finding("clock", level, says, "sudo timedatectl set-ntp true")
    return Finding("clock", "ok", says)


def _seen(request: Request, findings: list[Finding]) -> list[Finding]:
    """The findings of a node; where it wrote to the store's place, what it wrote must be seen here."""
    from store.place import place

    for k, finding in enumerate(findings):
        if finding.check == "store" and finding.level == "ok":
            folder = place(request.probe, request.options).parent
            if not (folder / request.mark).exists():
                says = f"what the node wrote to {folder} is not seen here"
                findings[k] = Finding("store", "fail", says, "mount the same disk there and here")
    return findings


def _named(nodes: Sequence[dict[str, Any]]) -> list[str]:
    """A name for each node: its address, and its number where several share one."""
    often = Counter(node["NodeManagerAddress"] for node in nodes)
    names = []
    for node in nodes:
        name = node["NodeManagerAddress"]
        name += f" {node['NodeID'][:6]}" if often[name] > 1 else ""
        names.append(f"head {name}" if "node:__internal_head__" in node["Resources"] else name)
    return names


def _size(nodes: Sequence[dict[str, Any]]) -> Answer:
    """What the cluster has."""
    has = Counter[str]()
    for node in nodes:
        has.update({kind: int(node["Resources"].get(kind, 0)) for kind in ("CPU", "GPU")})
    return Answer("cluster", Finding("cluster", "ok", f"{len(nodes)} nodes, {has['CPU']} cores, {has['GPU']} GPUs"))


def _same(answers: Sequence[Answer]) -> list[Answer]:
    """What must not differ between nodes, nor between them and this machine, where the driver is."""
    told: dict[str, dict[str, list[str]]] = {}
    for answer in [*answers, Answer(HERE, checks.code())]:
        for fact, value in answer.finding.facts.items():
            told.setdefault(fact, {}).setdefault(value, []).append(answer.node)
    findings = []
    for fact, values in told.items():
        if len(values) > 1:
            says = "; ".join(f"{value[:60]} on {_list(nodes)}" for value, nodes in values.items())
            findings.append(Finding(fact, "fail", f"differs: {says}", "ray up cluster.yaml, which installs anew"))
    if not findings and told:
        findings.append(Finding("the same", "ok", f"on all nodes: {', '.join(told)}"))
    return [Answer("cluster", finding) for finding in findings]


def _dashboard() -> Answer:
    """Who can reach the dashboard, and with it start programs."""
    import ray

    url = "" if ray.util.client.ray.is_connected() else ray._private.worker.get_dashboard_url() or ""
    if url and not url.startswith(("127.", "localhost:", "[::1]:")):
        says = f"listens on {url}, without a password: whoever reaches it can start programs"
        return Answer("cluster", Finding("dashboard", "warn", says, "ray start --head --dashboard-host=127.0.0.1"))
    return Answer("cluster", Finding("dashboard", "ok", f"on the head's loopback, {url}" if url else "none known here"))


def text(answers: Sequence[Answer]) -> Iterator[str]:
    """One line a check, then the command that mends it; nodes that agree share a line."""
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
            like = f"; ok on {others} more, {_list(good[1][1])} with {good[1][0]}" if others == 1 else ""
            like = f"; ok on {others} more nodes" if others > 1 else like
            where = f" ({_list(names)})" if nodes > 1 and len(told) > 1 else ""
            yield _row("ok", check, f"{said}{where}{like}")
        for (level, said, mend), names in told.items():
            if level != "ok":
                yield _row(level, check, said + (f" ({_list(names)})" if nodes > 1 else ""))
                yield f"      {'':13} mend: {plain(redact(mend))}"
    count = Counter(answer.finding.level for answer in answers)
    where = f" on {nodes} nodes" if nodes > 1 else ""
    yield f"{count['ok']} ok, {count['warn']} to look at, {count['fail']} failed{where}"


def _row(level: str, check: str, said: str) -> str:
    return f"{click.style(f'{level:5}', fg=COLOURS[level])} {plain(check):13} {plain(redact(said))}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES]) + (f" and {len(names) - NAMES} more" if len(names) > NAMES else "")


@click.command(
    cls=Command,
    epilog="\b\nExample:\n  python -m pipelines.doctor --address auto --store s3://bucket/labels.zarr\n"
    "Exit codes: 0 all is ok, or worth a look (warn) at most; 1 something failed.",
)
@click.option(
    "--address",
    envvar="RAY_ADDRESS",
    show_envvar=True,
    help="Check every node of this Ray cluster: auto or ray://HOST:PORT.",
)
@click.option(
    "--store", help="Folder or URL of a store, there already or to be made: must be the same place everywhere."
)
@click.option("--corpus", metavar="KIND:ROOT", help="Corpus whose files every node must be able to read.")
@click.option(
    "--teacher", "teachers", multiple=True, metavar="NAME", help="Also load this teacher, as --asr and --vsr name it."
)
@storage_options()
@click.option("--json", "as_json", is_flag=True, help="Print findings as JSON.")
def main(address, store, corpus, teachers, options, as_json):
    """Say what is missing on this machine, or on any node of a cluster, and the command that mends it."""
    answers = examine(address, Request(teachers=teachers, options=options), store, corpus)
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
