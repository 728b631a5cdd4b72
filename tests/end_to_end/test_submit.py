"""`ray up`, `submit`, `exec`, `job submit` and `down` for real: over SSH, by the project's cluster.local.yaml, on two machines.

The machines are namespaces of this one (processes, mounts, network), joined by a cable of the kernel's, each with a home, SSH
and /tmp/ray of its own: Ray's start and stop commands end every Ray on a machine, and nothing here may touch the user's
~/.ssh. More clips, and the time it takes:

    CONCORD_SUBMIT_CLIPS=40 python -m pytest tests/end_to_end/test_submit.py -s
"""

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

import store
from teachers.files import weights

ROOT = Path(__file__).parents[2]
VENV = Path(sys.executable).parent
CLIPS = int(os.environ.get("CONCORD_SUBMIT_CLIPS", "4"))  # 4: those that the project ships; more: of the shared corpus

ADDRESSES = ("10.77.0.1", "10.77.0.2")  # head and worker, in a network that nothing else is in
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TOOLS = ("sshd", "ssh", "ssh-keygen", "rsync", "nc", "unshare", "nsenter", "ip")

NOISE = (
    "File Mount",
    "To ensure this mount",
    "VINFO",
    "VWARN",
    "config-cache",
    "node_provider.py",
    "command_runner.py",
)

pytestmark = pytest.mark.slow

# Process 1 of a machine; bash, because what Ray leaves behind must be reaped for `ray stop` to see it end. Ends, and everything
# with it, when its standard input closes.
INSIDE = """
set -euo pipefail
ip link set lo up
mkdir -p /tmp/ray /run/sshd
mount --bind {root}/ray /tmp/ray
mount --bind {root}/passwd /etc/passwd
{sshd} -f /dev/null -E {root}/sshd.log -o Port=22 -o Port=2222 -o PidFile=none -o UsePAM=no -o HostKey={root}/host_key \
    -o AuthorizedKeysFile={keys} -o StrictModes=no -o PasswordAuthentication=no
echo ready
read -r || true
"""
ALIVE = """
import ray, time
ray.init("auto", log_to_driver=False)
end = time.monotonic() + 120
while sum(node["Alive"] for node in ray.nodes()) < 2:
    assert time.monotonic() < end, ray.nodes()
    time.sleep(0.5)
"""


@dataclass(frozen=True)
class Machine:
    """A machine within this one."""

    root: Path  # what it has of its own: home, keys, /tmp/ray
    address: str
    process: subprocess.Popen[bytes]

    @property
    def inside(self) -> int:
        """Its process 1, by the number that it has out here."""
        return psutil.Process(self.process.pid).children()[0].pid

    def enter(self, *namespaces: str) -> list[str]:
        return ["nsenter", f"--target={self.inside}", *(f"--{name}" for name in namespaces)]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in the project's folder, as a user there would type it."""
        env = {
            "HOME": str(self.root / "home"),
            "PATH": f"{VENV}:{PATH}",
            "TMPDIR": str(self.root / "tmp"),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        enter = [*self.enter("pid", "mount", "net"), f"--wdns={ROOT}"]
        begun = time.perf_counter()
        done = subprocess.run([*enter, *command], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        print(f"{time.perf_counter() - begun:6.1f} s  exit {done.returncode}  {shlex.join(command)[:300]}")
        told = [line for line in done.stdout.splitlines() if not any(noise in line for noise in NOISE)]
        print("".join(f"          {line}\n" for line in told[-12:]))
        return done


@dataclass(frozen=True)
class Cluster:
    """Two machines, and the file that makes a cluster of them."""

    head: Machine
    worker: Machine
    config: str

    def ray(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of Ray's about this cluster, typed on the head, where every machine is in reach."""
        flags = ["--yes"] if command in ("up", "down") else []
        return self.head.run("ray", command, *flags, self.config, *arguments)


def _missing() -> str:
    """What this machine lacks for the test, empty where nothing."""
    if lacking := [tool for tool in TOOLS if not shutil.which(tool, path=PATH)]:
        return f"not installed: {', '.join(lacking)} (Debian: openssh-server rsync netcat-openbsd util-linux iproute2)"
    if os.geteuid() != 0:
        return "namespaces of processes, mounts and network need root"
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", "--net", "true"], capture_output=True, text=True
    )
    return f"no namespaces here: {done.stderr.strip()}" if done.returncode else ""


def _started(root: Path, address: str, key: Path) -> Machine:
    """A machine with an SSH server that lets in `key`."""
    for folder in ("home", "ray", "tmp"):
        (root / folder).mkdir(parents=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / "host_key")], check=True)
    # sshd takes a user's home from here.
    users = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
    homes = [[*u[:5], str(root / "home"), "/bin/bash"] if u[0] == "root" else u for u in users]
    (root / "passwd").write_text("".join(":".join(u) + "\n" for u in homes))
    # No other network in there, so the models are this machine's. The environment is linked, and knows this checkout, but what
    # runs is what Ray has copied.
    environment = {"CONCORD_WEIGHTS": weights.cache_dir(), "PYTHONPATH": "~/concord-av", "PYTHONDONTWRITEBYTECODE": 1}
    (root / "home" / ".bashrc").write_text("".join(f"export {k}={v}\n" for k, v in environment.items()))
    sshd = shutil.which("sshd", path=PATH)  # it wants its whole path
    script = INSIDE.format(root=shlex.quote(str(root)), sshd=sshd, keys=shlex.quote(f"{key}.pub"))
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--net", "bash", "-c", script]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return Machine(root, address, process)


def _join(one: Machine, other: Machine) -> None:
    """A cable between two machines."""
    cable = ["ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(other.inside)]
    subprocess.run([*one.enter("net"), *cable], check=True)
    for machine in (one, other):
        # The route is for Ray, which asks the kernel by which address the world would be reached.
        for setting in (f"addr add {machine.address}/24 dev cable", "link set cable up", "route add default dev cable"):
            subprocess.run([*machine.enter("net"), "ip", *setting.split()], check=True)


def _cluster_file(root: Path, name: str, key: Path) -> str:
    """The project's file with what a user fills in; the environment is there already, so it is linked, not installed."""
    config = yaml.safe_load((ROOT / "cluster.local.yaml").read_text())
    config["cluster_name"] = name
    config["provider"] |= {"head_ip": ADDRESSES[0], "worker_ips": [ADDRESSES[1]]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(key), "ssh_proxy_command": "nc %h 2222"}
    install, *others = config["setup_commands"]
    assert "make install" in install
    config["setup_commands"] = [f"ln -sfn {VENV.parent} ~/concord-av/.venv", *others]
    (root / "cluster.yaml").write_text(yaml.safe_dump(config))
    return str(root / "cluster.yaml")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The cluster, up with both nodes; at the end whatever runs on its machines is killed."""
    if reason := _missing():
        pytest.skip(reason)
    root, name = tmp_path_factory.mktemp("machines"), f"test-{os.getpid()}"
    key = root / "user_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with contextlib.ExitStack() as stack:
        machines = []
        for part, address in zip(("head", "worker"), ADDRESSES, strict=True):
            machines.append(_started(root / part, address, key))
            stack.enter_context(machines[-1].process)
            stack.callback(machines[-1].process.kill)
        _join(*machines)
        made = Cluster(*machines, _cluster_file(root, name, key))
        up = made.ray("up")
        assert up.returncode == 0, up.stdout + up.stderr
        alive = made.head.run("python", "-c", ALIVE)
        assert alive.returncode == 0, alive.stderr
        yield made
        down = made.ray("down")
        assert down.returncode == 0, down.stdout + down.stderr
        left = [p for p in psutil.Process(made.head.inside).children(recursive=True) if "raylet" in p.name()]
        assert not left, "ray down left Ray running on the head"
    mark = hashlib.sha256(name.encode()).hexdigest()[:10]
    for sockets in Path("/tmp").glob(f"ray_ssh_*/{mark}"):
        shutil.rmtree(sockets)


@pytest.fixture(scope="module")
def corpus(request):
    """KIND:ROOT of real clips, at least CLIPS of them."""
    if CLIPS <= 4:
        return f"grid:{request.getfixturevalue('clips')}"
    return f"grid:{request.getfixturevalue('grid')}"


@pytest.fixture(scope="module")
def submitted(cluster, corpus):
    """What `ray submit` answered, and the store that it filled."""
    target = cluster.head.root.parent / "labels.zarr"
    arguments = ["--address", "auto", "--corpus", corpus, "--limit", str(CLIPS), "--store", str(target)]
    return cluster.ray("submit", "precompute.py", *arguments), target


@pytest.mark.parametrize("part", ["head", "worker"])
def test_every_machine_has_the_whole_project(cluster, part):
    there = getattr(cluster, part).root / "home" / "concord-av"
    for name in ("setup.cfg", "requirements.txt", "Makefile", "pipelines/demo/__init__.py", "teachers/avhubert"):
        assert (there / name).exists(), name
    assert not list(there.glob("*/__pycache__"))


def test_the_doctor_finds_nothing_amiss(cluster, submitted, corpus):
    _, target = submitted
    done = cluster.ray("exec", f"concord doctor --address auto --store {target} --corpus {corpus}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed on 2 nodes" in done.stdout
    assert "127.0.0.1:8265" in done.stdout, "the dashboard listens elsewhere than on the head's loopback"


def test_ray_submit_fills_the_store(submitted):
    done, target = submitted
    assert done.returncode == 0, done.stdout + done.stderr
    reader = store.open(target)
    assert len(reader) == CLIPS
    assert reader.clips["done"].tolist() == [1] * CLIPS


def test_ray_submit_fails_where_the_script_does(cluster, tmp_path):
    done = cluster.ray("submit", "precompute.py", "--store", str(tmp_path / "none.zarr"))
    assert done.returncode == 1  # Ray answers 1 whatever the script's code
    assert "precompute: " in done.stdout
    assert "--corpus" in done.stdout


def test_ray_job_submit_goes_on_with_the_store(cluster, submitted):
    _, target = submitted
    job = ["ray", "job", "submit", "--address", "http://127.0.0.1:8265", "--"]
    done = cluster.head.run(*job, "concord", "precompute", "--address", "auto", "--store", str(target))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stderr + done.stdout
