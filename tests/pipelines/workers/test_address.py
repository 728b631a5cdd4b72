"""An address without a cluster: real sockets that are closed, silent, or speak something else."""

import os
import pickle
import socket
import socketserver
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner
from command_runs import refused
from small_store import make_store

from pipelines.doctor import __main__ as doctor
from pipelines.workers import address, cluster
from pipelines.workers.address import NoCluster

ROOT = Path(__file__).parents[3]
FORMS = ("127.0.0.1:{}", "ray://127.0.0.1:{}")


def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextmanager
def silent():
    """A port that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@contextmanager
def full():
    """A port whose queue is full, so that packets to it get no answer, as those to a machine that is off."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        port = server.getsockname()[1]
        waiting = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            waiting.append(one)
        yield port
        for one in waiting:
            one.close()


class Greets(socketserver.BaseRequestHandler):
    """A server that speaks first, as SSH does, and hangs up."""

    def handle(self):
        self.request.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")


@contextmanager
def served(kind, handler):
    with kind(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@contextmanager
def other_grpc():
    """A server of gRPC without Ray's methods."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


@pytest.mark.parametrize("form", FORMS)
def test_a_closed_port_is_told_at_once(form):
    where = form.format(closed_port())
    with pytest.raises(
        NoCluster, match=f"^no cluster at {where}: Connection refused; start it .*, or leave --address out"
    ):
        cluster.connect(where)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("port", [silent, full])
def test_a_host_without_an_answer_is_given_up(port, form):
    with port() as number, pytest.raises(NoCluster, match=f"no cluster at {form.format(number)}: no answer within 1 s"):
        address.reach(form.format(number), timeout_s=1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "port",
    [lambda: served(HTTPServer, BaseHTTPRequestHandler), lambda: served(socketserver.TCPServer, Greets), other_grpc],
)
def test_something_else_is_not_a_cluster(port, form):
    with (
        port() as number,
        pytest.raises(NoCluster, match=r"something answers there, but not as Ray 2.* does; a head's"),
    ):
        address.reach(form.format(number))


def test_a_name_server_that_hangs_is_not_waited_for(monkeypatch):
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: done.wait() and [])
    with pytest.raises(NoCluster, match=r"head\.example:6379: no answer within 0 s"):
        address.reach("head.example:6379", timeout_s=0.1)
    done.set()


@pytest.mark.parametrize(
    "wrong", ["http://127.0.0.1:8265", "ray://head", "head", "head:", ":6379", "head:0", "head:70000", "head:x"]
)
def test_what_is_no_address_is_told_with_the_forms_it_has(wrong):
    with pytest.raises(
        NoCluster, match=r"is not the address of a Ray cluster; a head's address is HOST:6379, .*ray://HOST"
    ):
        address.reach(wrong)


def test_the_environment_gives_the_address_that_ray_would_take(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert [address.resolve(given) for given in (None, "", "auto", "local", "h:1")] == ["local"] * 2 + [
        "auto",
        "local",
        "h:1",
    ]
    address.reach(None)  # a Ray of one's own
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed_port()}")
    assert {address.resolve(given) for given in (None, "auto")} == {os.environ["RAY_ADDRESS"]}
    assert address.resolve("h:1") == "h:1"
    for given in (None, "auto", os.environ["RAY_ADDRESS"]):
        with pytest.raises(
            NoCluster, match=r"\(RAY_ADDRESS\): Connection refused; start it .*, or unset RAY_ADDRESS to use"
        ):
            address.reach(given)


def test_auto_without_a_cluster_says_so(monkeypatch):
    from ray._private import services

    def none(given):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "canonicalize_bootstrap_address_or_die", none)
    with pytest.raises(NoCluster, match="no cluster at auto: no Ray runs on this machine; start it"):
        address.reach("auto")


def test_the_error_crosses_processes():
    error = address.missing("h:1", "no answer")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert pickle.loads(pickle.dumps(error)).mend == error.mend


def command(where, *arguments):
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | (
        {"RAY_ADDRESS": where} if where else {}
    )
    run = [sys.executable, *arguments]
    return subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("form", FORMS)
def test_precompute_changes_nothing_and_ends_in_one_line(tmp_path, clips, form):
    where, target = form.format(closed_port()), tmp_path / "labels.zarr"
    done = command(where, "precompute.py", "--corpus", f"grid:{clips}", "--store", str(target))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"precompute: no cluster at {where} (RAY_ADDRESS): Connection refused; start it (ray up cluster.yaml, or ray start "
        "--head), or unset RAY_ADDRESS to use this machine alone"
    ]
    assert not list(tmp_path.iterdir())


def test_precompute_leaves_a_store_as_it_is(tmp_path, clips):
    path = make_store(tmp_path / "s.zarr", {"train": 2})
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    for more in (["--refit"], ["--corpus", f"grid:{clips}"], ["--corpus", f"grid:{clips}", "--dry-run"]):
        said = refused("--store", path, "--address", f"127.0.0.1:{closed_port()}", *more)
        assert len(said.splitlines()) == 1
        assert "no cluster at" in said
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_the_doctor_says_the_same_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", f"ray://127.0.0.1:{closed_port()}")
    done = CliRunner().invoke(doctor.main, ["--store", str(tmp_path / "labels.zarr")])
    assert done.exit_code == 1
    said = " ".join(done.output.split())
    assert f"no cluster at {os.environ['RAY_ADDRESS']} (RAY_ADDRESS): Connection refused fix: start it" in said
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def head():
    """A Ray of two cores on this machine: the addresses of its head and of its client server."""
    from ray.cluster_utils import Cluster

    port = closed_port()
    size = {"num_cpus": 2, "object_store_memory": 200 << 20, "include_dashboard": False}
    running = Cluster(initialize_head=True, head_node_args={**size, "ray_client_server_port": port})
    client = f"ray://127.0.0.1:{port}"
    try:
        for _ in range(1000):
            try:
                address.reach(client)
                break
            except NoCluster:  # it starts a moment after the head
                threading.Event().wait(0.1)
        yield running.address, client
    finally:
        running.shutdown()


@pytest.mark.slow
def test_a_head_and_its_client_server_are_told_apart(head):
    for where in head:
        address.reach(where)
    for swapped in (f"ray://{head[0]}", head[1].removeprefix("ray://")):
        with pytest.raises(NoCluster, match="not as Ray"):
            address.reach(swapped)


@pytest.mark.slow
def test_precompute_runs_behind_the_client_server(head, tmp_path, clips):
    """Ray Data does not run in such a driver."""
    import store

    target = tmp_path / "labels.zarr"
    done = command(head[1], "precompute.py", "--corpus", f"grid:{clips}", "--limit", "2", "--store", str(target))
    assert done.returncode == 0, done.stderr
    assert store.open(target).clips["done"].tolist() == [1, 1]
    assert "gRPC" not in done.stderr
