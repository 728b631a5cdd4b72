"""Runs the checks on every node of a cluster, and compares what must be equal everywhere."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from concord.text import counted
from pipelines.doctor import checks
from pipelines.doctor.asking import HERE, TIMEOUT_S, Answer, asker, findings_of, listed
from pipelines.doctor.checks import Request
from pipelines.doctor.machine import Finding

SKEW_S, BAD_SKEW_S = 2.0, 30.0  # a store's lease lasts minutes, and S3 refuses requests that are 15 minutes off
SAMPLES = 3  # of a node's clock; the fastest answer counts


def joined(address: str) -> Finding | None:
    """Join a cluster; what is wrong if there is none."""
    from pipelines.workers import cluster
    from pipelines.workers.address import NoCluster

    try:
        cluster.connect(address)
    except NoCluster as error:
        return Finding("cluster", "fail", error.says, error.mend)
    return None


def of_cluster(request: Request) -> list[Answer]:
    """The checks of every node of the cluster that this process has joined, and those of the cluster."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    ask: Any = ray.remote(num_cpus=0, max_retries=0)(asker())
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
            found = findings_of(ray.get(reference, timeout=TIMEOUT_S + 60))
            found.append(_skew(partial(_now, there)))
        except (ray.exceptions.RayError, TimeoutError) as error:
            says = f"the node does not answer: {' '.join(str(error).split())[:300]}"
            found = [Finding("node", "fail", says, "ray status; then ray up cluster.yaml")]
        answers += [Answer(name, finding) for finding in _seen(own, found)]
    return [_size(nodes), *answers, *_same(answers), _dashboard()]


def _now(clock: Any) -> float:
    import ray

    return ray.get(clock.remote(), timeout=60)


def _clock() -> Callable[[], float]:
    """A node's clock, in seconds; an inner function for the reason given in `asker`."""

    def now() -> float:
        import time

        return time.time()

    return now


def _skew(read: Callable[[], float]) -> Finding:
    """The difference of a clock from this machine's."""
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
    """The findings of a node; if it wrote to the store's place, its file must be visible here."""
    from store.place import place

    for k, finding in enumerate(findings):
        if finding.check == "store" and finding.level == "ok":
            folder = place(request.probe, request.options).parent
            if not (folder / request.mark).exists():
                says = f"the node's file in {folder} is not visible here"
                findings[k] = Finding("store", "fail", says, "mount the same disk there and here")
    return findings


def _named(nodes: Sequence[dict[str, Any]]) -> list[str]:
    """A name for each node: its address, and a number if several share one."""
    often = Counter(node["NodeManagerAddress"] for node in nodes)
    names = []
    for node in nodes:
        name = node["NodeManagerAddress"]
        name += f" {node['NodeID'][:6]}" if often[name] > 1 else ""
        names.append(f"head {name}" if "node:__internal_head__" in node["Resources"] else name)
    return names


def _size(nodes: Sequence[dict[str, Any]]) -> Answer:
    """The resources of the cluster."""
    has = Counter[str]()
    for node in nodes:
        has.update({kind: int(node["Resources"].get(kind, 0)) for kind in ("CPU", "GPU")})
    told = [counted(len(nodes), "node"), counted(has["CPU"], "core"), counted(has["GPU"], "GPU")]
    return Answer("cluster", Finding("cluster", "ok", ", ".join(told)))


def _same(answers: Sequence[Answer]) -> list[Answer]:
    """Facts that must not differ between nodes, nor between them and this machine, which runs the driver."""
    told: dict[str, dict[str, list[str]]] = {}
    for answer in [*answers, Answer(HERE, checks.code())]:
        for fact, value in answer.finding.facts.items():
            told.setdefault(fact, {}).setdefault(value, []).append(answer.node)
    findings = []
    for fact, values in told.items():
        if len(values) > 1:
            says = "; ".join(f"{value[:60]} on {listed(nodes)}" for value, nodes in values.items())
            findings.append(Finding(fact, "fail", f"differs: {says}", "ray up cluster.yaml, which installs again"))
    if not findings and told:
        findings.append(Finding("the same", "ok", f"on all nodes: {', '.join(told)}"))
    return [Answer("cluster", finding) for finding in findings]


def _dashboard() -> Answer:
    """Who can reach the dashboard, and so start programs."""
    import ray

    url = "" if ray.util.client.ray.is_connected() else ray._private.worker.get_dashboard_url() or ""
    if url and not url.startswith(("127.", "localhost:", "[::1]:")):
        says = f"listens on {url}, without a password: anyone who can reach it can start programs"
        return Answer("cluster", Finding("dashboard", "warn", says, "ray start --head --dashboard-host=127.0.0.1"))
    return Answer("cluster", Finding("dashboard", "ok", f"on the head's loopback, {url}" if url else "none known here"))
