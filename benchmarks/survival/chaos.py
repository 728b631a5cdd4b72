"""Precompute under fire: workers, children and nodes killed every few seconds, the driver twice; the store must not differ.

    python -m benchmarks chaos --corpus grid:/data/grid_s1

A calm run first (or --calm STORE); then the same on a Ray cluster of a head and two worker nodes on this machine, with a kill
(SIGKILL) every 10 seconds: of a worker process, of the child that does its work, or of a whole node, which is replaced. The
driver is killed twice, at about a third and two thirds of the clips, and started again. Then every array of the two stores is
compared, value by value. Exit code 1 where anything differs.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
import psutil

from benchmarks.survival.same import differences, faults
from store import staging

ROOT = Path(__file__).parents[2]
NODES = 2
PLURAL = {"child": "children", "driver": "drivers", "node": "nodes", "worker": "workers"}
MEMORY = 512 << 20  # bytes of object store a node


def clips_on_the_way(store: Path) -> int:
    """Clips that are staged or done: how far a run has come."""
    import store as stores

    if not (store / "zarr.json").exists():
        return 0
    staged = sum(int(file.stem.rsplit("-", 1)[1]) for file in (store / staging.FOLDER).glob("*.npz"))
    return staged + int((stores.open(store).clips["done"] == 1).sum())


class Cluster:
    """Head and worker nodes on this machine, killed and replaced for real."""

    def __init__(self, nodes: int) -> None:
        from ray.cluster_utils import Cluster as Nodes

        self.cluster = Nodes(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": MEMORY, "include_dashboard": False},
        )
        self.nodes = [self.add() for _ in range(nodes)]

    @property
    def address(self) -> str:
        return self.cluster.address

    def add(self):
        return self.cluster.add_node(num_cpus=1, object_store_memory=MEMORY)

    def kill_node(self, dice: random.Random) -> None:
        """A node with all that runs on it, at once; another takes its place."""
        k = dice.randrange(len(self.nodes))
        self.cluster.remove_node(self.nodes[k], allow_graceful=False)
        self.nodes[k] = self.add()

    def stop(self) -> None:
        self.cluster.shutdown()


def processes(kind: str) -> list[psutil.Process]:
    """Busy Ray workers, or the children that work for them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            line = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        busy = line.startswith("ray::") and not line.startswith(("ray::IDLE", "ray::Tally")) and "Agent" not in line
        if busy if kind == "worker" else "pipelines.workers.isolation" in line:
            found.append(process)
    return found


def strike(cluster: Cluster, dice: random.Random) -> str:
    """Kill something; its kind, "" where there is nothing."""
    kind = dice.choice(["worker", "worker", "child", "node"])
    if kind == "node":
        cluster.kill_node(dice)
        return kind
    found = processes(kind)
    if not found:
        return ""
    dice.choice(found).kill()
    return kind


@click.command(epilog="Example: python -m benchmarks chaos --corpus grid:/data/grid_s1")
@click.option("--corpus", required=True, metavar="KIND:ROOT")
@click.option("--clips", default=300, show_default=True)
@click.option("--every", default=10.0, show_default=True, help="Seconds between kills.")
@click.option("--drivers", default=2, show_default=True, help="Times that the driver is killed.")
@click.option("--calm", type=click.Path(path_type=Path), help="Store of a calm run of the same clips.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where stores and logs go.  [default: a temporary folder]"
)
def main(
    corpus: str, clips: int, every: float, drivers: int, calm: Path | None, seed: int, folder: Path | None
) -> None:
    """Run precompute.py with random kills and compare its store with that of an undisturbed run."""
    folder = folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "precompute.py"), "--corpus", corpus, "--limit", str(clips)]
    command += ["--similarity", "cca"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("RAY_ADDRESS", None)
    begun = time.monotonic()
    if calm is None:
        calm = folder / "calm.zarr"
        subprocess.run([*command, "--store", str(calm)], check=True, cwd=ROOT, env=environment)
        click.echo(f"calm run: {time.monotonic() - begun:.0f} s")
    dice, kills, store, begun = random.Random(seed), Counter[str](), folder / "chaos.zarr", time.monotonic()
    cluster = Cluster(NODES)
    try:
        command += ["--store", str(store), "--address", cluster.address]
        with (folder / "driver.log").open("a") as log:
            for k in range(drivers + 1):
                goal = clips * (k + 1) // (drivers + 1) if k < drivers else None  # the last one lives
                driver = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment)
                struck = time.monotonic()
                while driver.poll() is None:
                    if goal is not None and clips_on_the_way(store) >= goal:
                        driver.kill()
                        driver.wait()
                        kills["driver"] += 1
                        break
                    if time.monotonic() - struck > every:
                        kills[strike(cluster, dice)] += 1
                        struck = time.monotonic()
                    time.sleep(0.2)
        code = driver.returncode
    finally:
        cluster.stop()
    del kills[""]
    killed = ", ".join(f"{n} {kind if n == 1 else PLURAL[kind]}" for kind, n in sorted(kills.items()))
    click.echo(f"under fire: {time.monotonic() - begun:.0f} s; killed: {killed}; last exit code {code}; {folder}")
    found = [*faults(store), *differences(calm, store)]
    for line in found:
        click.echo(line)
    click.echo(
        f"{len(found)} differences" if found else "equal: every array, every value, every ledger row, no clip twice"
    )
    sys.exit(1 if found or code != 0 else 0)
