"""`ray up`, `submit`, `job submit` and `down` for real: over SSH to this machine, with the project's cluster.local.yaml.

Ray's start and stop commands end every Ray on the machine, so all of it happens in a PID, mount and network namespace of its
own, with its own home, SSH keys and /tmp/ray. More clips, and the time it takes:

    CONCORD_SUBMIT_CLIPS=40 python -m pytest tests/test_submit.py -s
"""

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
from teachers import weights

ROOT = Path(__file__).parent.parent
VENV = Path(sys.executable).parent
CLIPS = int(os.environ.get("CONCORD_SUBMIT_CLIPS", "4"))  # 4: those that the project ships; more: of the shared corpus

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TOOLS = ("sshd", "ssh", "ssh-keygen", "rsync", "nc", "unshare", "nsenter", "ip")

pytestmark = pytest.mark.slow

# Process 1 of the namespace; bash, because what Ray leaves behind must be reaped for `ray stop` to see it end. Ends, and
# everything with it, when its standard input closes.
INSIDE = """
set -euo pipefail
ip link set lo up
mkdir -p /tmp/ray /run/sshd
mount --bind {root}/ray /tmp/ray
mount --bind {root}/passwd /etc/passwd
{sshd} -f /dev/null -E {root}/sshd.log -o Port=2222 -o ListenAddress=127.0.0.1 -o PidFile=none -o UsePAM=no \
    -o HostKey={root}/host_key -o AuthorizedKeysFile={root}/user_key.pub -o StrictModes=no -o PasswordAuthentication=no
echo ready
read -r || true
"""


@dataclass(frozen=True)
class Loopback:
    """A cluster of one machine, which is this one."""

    root: Path
    inside: int  # process 1 of the namespace, by its number outside

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in the namespace, in the project's folder, as its user would type it."""
        env = {
            "HOME": str(self.root / "home"),
            "PATH": f"{VENV}:{PATH}",
            "TMPDIR": str(self.root / "tmp"),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        enter = ["nsenter", f"--target={self.inside}", "--pid", "--mount", "--net", f"--wdns={ROOT}"]
        begun = time.perf_counter()
        done = subprocess.run([*enter, *command], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        print(f"{time.perf_counter() - begun:6.1f} s  exit {done.returncode}  {shlex.join(command)}")
        print("".join(f"          {line}\n" for line in done.stdout.splitlines()[-8:]))
        return done

    @property
    def config(self) -> str:
        return str(self.root / "cluster.yaml")


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


def _cluster_file(root: Path, name: str) -> None:
    """The project's file with what a user fills in; the environment is there already, so it is linked, not installed."""
    config = yaml.safe_load((ROOT / "cluster.local.yaml").read_text())
    config["cluster_name"] = name
    config["provider"] |= {"head_ip": "127.0.0.1", "worker_ips": []}
    config["auth"] = {
        "ssh_user": "root",
        "ssh_private_key": str(root / "user_key"),
        "ssh_proxy_command": "nc 127.0.0.1 2222",
    }
    install, *others = config["setup_commands"]
    assert "make install" in install
    config["setup_commands"] = [f"ln -sfn {VENV.parent} ~/concord-av/.venv", *others]
    (root / "cluster.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The cluster, up; at the end whatever runs in its namespace is killed."""
    if reason := _missing():
        pytest.skip(reason)
    root = tmp_path_factory.mktemp("loopback")
    for folder in ("home", "ray", "tmp"):
        (root / folder).mkdir()
    home = root / "home"
    for key in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / key)], check=True)
    # sshd takes a user's home from here, so nobody's ~/.ssh or ~/.bashrc is touched.
    users = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
    homes = [[*u[:5], str(home), "/bin/bash"] if u[0] == "root" else u for u in users]
    (root / "passwd").write_text("".join(":".join(u) + "\n" for u in homes))
    (home / ".bashrc").write_text(f"export CONCORD_WEIGHTS={weights.cache_dir()}\n")  # no network in there
    name = f"loopback-{os.getpid()}"
    _cluster_file(root, name)
    script = INSIDE.format(
        root=shlex.quote(str(root)), sshd=shutil.which("sshd", path=PATH)
    )  # sshd wants its whole path
    namespaces = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--net"]
    with subprocess.Popen([*namespaces, "bash", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as outer:
        try:
            assert outer.stdout.readline() == b"ready\n"
            loopback = Loopback(root, psutil.Process(outer.pid).children()[0].pid)
            up = loopback.run("ray", "up", "--yes", loopback.config)
            assert up.returncode == 0, up.stdout + up.stderr
            yield loopback
            down = loopback.run("ray", "down", "--yes", loopback.config)
            assert down.returncode == 0, down.stdout + down.stderr
            left = [p for p in psutil.Process(loopback.inside).children(recursive=True) if "raylet" in p.name()]
            assert not left, "ray down left Ray running"
        finally:
            outer.kill()
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
    target = cluster.root / "labels.zarr"
    arguments = ["--address", "auto", "--corpus", corpus, "--limit", str(CLIPS), "--store", str(target)]
    return cluster.run("ray", "submit", cluster.config, "precompute.py", *arguments), target


def test_the_head_has_the_whole_project(cluster):
    there = cluster.root / "home" / "concord-av"
    for part in ("setup.cfg", "requirements.txt", "Makefile", "pipelines/demo/__init__.py", "teachers/avhubert"):
        assert (there / part).exists(), part
    assert not list(there.glob("*/__pycache__"))


def test_ray_submit_fills_the_store(submitted):
    done, target = submitted
    assert done.returncode == 0, done.stdout + done.stderr
    reader = store.open(target)
    assert len(reader) == CLIPS
    assert reader.clips["done"].tolist() == [1] * CLIPS


def test_the_doctor_finds_nothing_amiss_on_the_cluster(cluster, submitted, corpus):
    _, target = submitted
    examine = f"concord doctor --address auto --store {target} --corpus {corpus}"
    done = cluster.run("ray", "exec", cluster.config, examine)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout


def test_ray_submit_fails_where_the_script_does(cluster, tmp_path):
    done = cluster.run("ray", "submit", cluster.config, "precompute.py", "--store", str(tmp_path / "none.zarr"))
    assert done.returncode == 1  # Ray answers 1 whatever the script's code
    assert "precompute: " in done.stdout
    assert "--corpus" in done.stdout


def test_ray_job_submit_goes_on_with_the_store(cluster, submitted):
    _, target = submitted
    job = ["ray", "job", "submit", "--address", "http://127.0.0.1:8265", "--"]
    done = cluster.run(*job, "concord", "precompute", "--address", "auto", "--store", str(target))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stderr + done.stdout
