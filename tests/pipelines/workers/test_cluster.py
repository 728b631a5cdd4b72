"""The example clusters are such as Ray accepts, with nothing open that need not be; stages without a cluster."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipelines.corpora.manifest import Row
from pipelines.workers import cluster
from pipelines.workers.pack import frame_labels

ROOT = Path(__file__).parents[3]
FILES = ("cluster.yaml", "cluster.local.yaml")


@pytest.fixture(scope="module", params=FILES)
def config(request):
    return yaml.safe_load((ROOT / request.param).read_text())


def _validated(config):
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    return prepared


def test_ray_accepts_the_example(config):
    assert _validated(config)["head_node_type"]


def test_the_dashboard_stays_on_the_heads_loopback(config):
    start = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    assert start
    assert all("--dashboard-host=127.0.0.1" in line for line in start)


def _needed():
    """What an installation needs: packages, modules and the files that setup.cfg and the Makefile name."""
    project = configparser.ConfigParser()
    project.read(ROOT / "setup.cfg")
    needed = {"setup.cfg", "pyproject.toml", "Makefile", "requirements.txt"}
    needed |= {name.rstrip("*") for name in project["options.packages.find"]["include"].split()}
    needed |= {f"{name}.py" for name in project["options"]["py_modules"].split()}
    needed |= {project["metadata"]["long_description"].removeprefix("file: ")}
    return needed | set(project["metadata"]["license_files"].split())


def test_every_node_gets_all_that_the_installation_needs(config):
    mounts = config["file_mounts"]
    assert _needed() <= set(mounts.values())
    assert all((ROOT / local).exists() and Path(remote).name == local for remote, local in mounts.items())
    assert any("make install" in line for line in config["setup_commands"])


def test_the_image_has_all_that_the_installation_needs():
    lines = (ROOT / "docs" / "Dockerfile").read_text().splitlines()
    copied = [line.split()[2:-1] for line in lines if line.startswith("COPY --chown=ray")]
    assert _needed() <= {name for names in copied for name in names}


def test_mounts_leave_out_what_would_be_read_in_vain(config):
    assert "." not in config["file_mounts"].values()


def test_no_environment_or_cache_is_copied(config):
    assert "**/__pycache__" in config["rsync_exclude"]
    assert "**/demo" not in config["rsync_exclude"], "pipelines/demo is part of the package"


@pytest.fixture(scope="module")
def aws(tmp_path_factory):
    """An account of AWS on this machine, by moto, with the instance profiles that docs/cluster.md makes: its EC2 client, and
    the example as `ray up` completes it with what it finds in and adds to the account."""
    import boto3
    import moto
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    home = tmp_path_factory.mktemp("home")
    (home / ".ssh").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("HOME", str(home)), ("AWS_ACCESS_KEY_ID", "none"), ("AWS_SECRET_ACCESS_KEY", "none")):
            patch.setenv(name, value)
        with moto.mock_aws():
            iam = boto3.client("iam", "eu-central-1")
            for profile in ("concord-av-head", "concord-av"):
                iam.create_instance_profile(InstanceProfileName=profile)
            config = _validated(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
            config = AWSNodeProvider.fillout_available_node_types_resources(config)
            yield boto3.client("ec2", "eu-central-1"), AWSNodeProvider.bootstrap_config(config)


def test_from_outside_ssh_alone_reaches_the_aws_cluster(aws):
    client, config = aws
    used = {group for t in config["available_node_types"].values() for group in t["node_config"]["SecurityGroupIds"]}
    rules = [
        rule
        for group in client.describe_security_groups(GroupIds=sorted(used))["SecurityGroups"]
        for rule in group["IpPermissions"]
    ]
    outside = [rule for rule in rules if rule["IpRanges"] or rule["Ipv6Ranges"] or rule["PrefixListIds"]]
    inside = [pair["GroupId"] for rule in rules for pair in rule["UserIdGroupPairs"]]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in outside] == [(22, 22)]
    assert set(inside) <= used


def test_ray_finds_the_cores_and_gpus_of_the_aws_nodes(aws):
    resources = {name: t["resources"] for name, t in aws[1]["available_node_types"].items()}
    assert resources["head"]["CPU"] == 2
    assert resources["cpu"]["CPU"] == 32
    assert (resources["gpu"]["CPU"], resources["gpu"]["GPU"]) == (4, 1)


def test_aws_starts_every_type_of_node_and_the_workers_as_spot(aws):
    from ray.autoscaler import tags
    from ray.autoscaler._private.providers import _get_node_provider

    client, config = aws
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    for name, node in config["available_node_types"].items():
        kind = "head" if name == config["head_node_type"] else "worker"
        marks = {
            tags.TAG_RAY_NODE_KIND: kind,
            tags.TAG_RAY_USER_NODE_TYPE: name,
            tags.TAG_RAY_NODE_NAME: name,
            tags.TAG_RAY_NODE_STATUS: "uninitialized",
        }
        provider.create_node(node["node_config"], marks, 1)
    found = [node for group in client.describe_instances()["Reservations"] for node in group["Instances"]]
    told = {
        tag["Value"]: (node.get("InstanceLifecycle"), node["IamInstanceProfile"]["Arn"].rpartition("/")[2])
        for node in found
        for tag in node["Tags"]
        if tag["Key"] == tags.TAG_RAY_USER_NODE_TYPE
    }
    assert told == {"head": (None, "concord-av-head"), "cpu": ("spot", "concord-av"), "gpu": ("spot", "concord-av")}


@pytest.fixture(scope="module")
def kuberay():
    """The documents of docs/kuberay.yaml by kind."""
    return {document["kind"]: document for document in yaml.safe_load_all((ROOT / "docs" / "kuberay.yaml").read_text())}


def _groups(kuberay):
    """Head and worker groups."""
    spec = kuberay["RayJob"]["spec"]["rayClusterSpec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def test_the_kubernetes_job_has_the_ray_that_is_pinned(kuberay):
    job = kuberay["RayJob"]
    assert job["apiVersion"] == "ray.io/v1"
    assert f"ray=={job['spec']['rayClusterSpec']['rayVersion']}" in (ROOT / "requirements.txt").read_text().split()


def test_every_pod_of_the_kubernetes_job_has_an_image_and_bounds(kuberay):
    images = set()
    for group in _groups(kuberay):
        (container,) = group["template"]["spec"]["containers"]
        images.add(container["image"])
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
        assert group.get("minReplicas", 0) <= group.get("maxReplicas", 1)
    assert len(images) == 1, "all nodes must have the same code"


def test_the_kubernetes_job_runs_a_command_that_precompute_knows(kuberay):
    import shlex

    from precompute import main

    program, command, *arguments = shlex.split(kuberay["RayJob"]["spec"]["entrypoint"])
    assert (program, command) == ("concord", "precompute")
    options = {name for option in main.params for name in option.opts}
    assert {word for word in arguments if word.startswith("--")} <= options


def test_only_the_jobs_own_pods_and_the_operator_reach_its_pods(kuberay):
    policy = kuberay["NetworkPolicy"]["spec"]
    label = policy["podSelector"]["matchLabels"].items()
    assert all(label <= group["template"]["metadata"]["labels"].items() for group in _groups(kuberay))
    assert policy["policyTypes"] == ["Ingress"]
    (rule,) = policy["ingress"]
    own, operator = rule["from"]
    assert own == {"podSelector": policy["podSelector"]}
    assert operator["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "kuberay-operator"}


@pytest.mark.parametrize(
    ("row", "forged"),
    [
        (Row("a", label=0), []),
        (Row("a", label=1), list(range(10))),
        (Row("a", label=1, video_segments=((0.08, 0.16),)), [2, 3]),
        (Row("a", label=1, audio_segments=((0.0, 0.03),), video_segments=((0.31, 0.39),)), [0, 8, 9]),
        # Frames 7 and 8 end at 0.32 and 0.36 s; the segment ends before the middle of 8 and holds the middle of 7.
        (Row("a", label=1, video_segments=((0.29, 0.33),)), [7]),
    ],
)
def test_a_forged_segment_labels_the_frames_whose_middle_it_holds(row, forged):
    assert np.flatnonzero(frame_labels(row, 10) == 1).tolist() == forged


def test_unknown_clips_have_unknown_frames():
    assert (frame_labels(Row("a"), 3) == -1).all()


TERMINATED = """
import os, signal, threading
from pipelines.workers import cluster

def ours(number, _):
    raise SystemExit(128 + number)

def send():
    while signal.getsignal(signal.SIGTERM) is ours:  # until Ray has installed its own handler
        pass
    os.kill(os.getpid(), signal.SIGTERM)

signal.signal(signal.SIGTERM, ours)
threading.Thread(target=send, daemon=True).start()
cluster.connect("local")
"""


def test_sigterm_while_ray_starts_ends_with_143():
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED], cwd=ROOT, env=environment, capture_output=True, timeout=300
    )
    assert done.returncode == 143


def test_a_ray_that_cannot_start_is_one_plain_sentence():
    theirs = Exception(
        "The current node timed out during startup. This could happen because the GCS has become overloaded."
    )
    said = str(cluster._not_started(theirs, 31.2))
    assert (
        said == "this machine was too busy to start Ray within 31 s; run the same command again when it has less to do"
    )
    assert "pipelines.doctor" in str(cluster._not_started(RuntimeError("no space"), 1))


def test_workers_import_from_where_the_driver_does(tmp_path, monkeypatch):
    """Ray adds the current folder to the search path of its workers, where a store.py of the user's would hide ours."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    job = cluster._job()
    job._py_driver_sys_path.extend([sys.path[-1], str(tmp_path)])
    assert str(tmp_path).encode() not in job._serialize()
    assert job._py_driver_sys_path == [sys.path[-1]]
    monkeypatch.syspath_prepend("")  # as for python -m: there the current folder is meant
    job = cluster._job()
    job._py_driver_sys_path.append(str(tmp_path))
    assert str(tmp_path).encode() in job._serialize()
