"""The address of a Ray cluster, and whether one answers there, within seconds.

Ray itself retries for minutes at an address where nothing listens, and may end the whole process where something else
does. So a call that Ray's servers answer is tried first: `CheckAlive` of a head (HOST:6379), the ping of a client server
(ray://HOST:10001). That call is not part of Ray's public interface; the lock pins Ray.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from concord.errors import ConcordError

REACH_S = 8.0  # for the name, the connection and the answer; lost packets are sent again after 1, 3 and 7 s
START = "start it (ray up cluster.yaml, or ray start --head)"
FORMS = "a head's address is HOST:6379, a client server's ray://HOST:10001 (http://HOST:8265 is for `ray job`)"
ENVIRONMENT = "RAY_ADDRESS"
CLIENT = "ray://"

T = TypeVar("T")


class NoCluster(ConcordError):
    """No Ray cluster at an address: `says` is what happened there, `mend` what to do."""

    def __init__(self, says: str, mend: str):
        super().__init__(says, mend)
        self.says, self.mend = says, mend

    def __str__(self) -> str:
        return f"{self.says}; {self.mend}"


def resolve(address: str | None) -> str:
    """The address that Ray would use: the given one; RAY_ADDRESS if there is none or it is "auto"; else "local", which is
    a Ray of this process's own."""
    if address in (None, "", "auto"):
        return os.environ.get(ENVIRONMENT) or address or "local"
    return str(address)


def reach(address: str | None, timeout_s: float = REACH_S) -> None:
    """Raises NoCluster if no Ray answers at an address (see `resolve`) within `timeout_s`; "local" always does."""
    found = resolve(address)
    if found == "local":
        return
    host, port = _place(found) if found != "auto" else _here()
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # else it tells on standard error of every fork
    import ray  # its import takes longer than a cluster's answer

    try:
        is_ray = _within(lambda: _answers(host, port, found.startswith(CLIENT), timeout_s), timeout_s)
    except TimeoutError:
        raise missing(address, f"no answer within {timeout_s:.0f} s") from None
    except (OSError, RuntimeError) as error:
        raise missing(address, error) from error
    if not is_ray:
        raise NoCluster(f"no cluster at {found}: something answers there, but not as Ray {ray.__version__} does", FORMS)


def missing(address: str | None, error: object) -> NoCluster:
    """The error of an address, with the reason in one line."""
    found = resolve(address)
    theirs = found == os.environ.get(ENVIRONMENT)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    says = f"no cluster at {found}{f' ({ENVIRONMENT})' if theirs else ''}: {' '.join(str(reason).split())[:300]}"
    return NoCluster(
        says, f"{START}, or {f'unset {ENVIRONMENT}' if theirs else 'leave --address out'} to use this machine alone"
    )


def _within(work: Callable[[], T], timeout_s: float) -> T:
    """The result of `work`, which runs in a thread; TimeoutError if it takes longer, as a name server may."""
    done: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((work(), None))
        except Exception as error:
            done.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = done.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def _answers(host: str, port: int, client: bool, timeout_s: float) -> bool:
    """Whether a Ray answers; raises OSError if nothing does."""
    socket.create_connection((host, port), timeout=timeout_s).close()
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.util.client.common import GRPC_OPTIONS

    channel = init_grpc_channel(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", GRPC_OPTIONS)
    try:
        _call(channel, client, timeout_s)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            raise TimeoutError from error
        return error.code() is grpc.StatusCode.UNAUTHENTICATED  # a Ray that wants a token; it says so itself
    finally:
        channel.close()
    return True


def _call(channel: Any, client: bool, timeout_s: float) -> None:
    """Ask a client server, or a head, for a sign of life."""
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc, ray_client_pb2, ray_client_pb2_grpc

    messages: Any = ray_client_pb2 if client else gcs_service_pb2  # these modules have no types
    stubs: Any = ray_client_pb2_grpc if client else gcs_service_pb2_grpc
    if client:
        ping = messages.ClusterInfoRequest(type=messages.ClusterInfoType.PING)
        stubs.RayletDriverStub(channel).ClusterInfo(ping, timeout=timeout_s)
    else:
        stubs.NodeInfoGcsServiceStub(channel).CheckAlive(messages.CheckAliveRequest(), timeout=timeout_s)


def _here() -> tuple[str, int]:
    """Host and port of the Ray that runs on this machine."""
    from ray._private.services import canonicalize_bootstrap_address_or_die

    try:
        return _place(canonicalize_bootstrap_address_or_die("auto"))
    except ConnectionError as error:
        raise NoCluster("no cluster at auto: no Ray runs on this machine", START) from error


def _place(address: str) -> tuple[str, int]:
    """Host and port of an address."""
    scheme, found, rest = address.partition("://")
    host, _, port = (rest if found else address).rpartition(":")
    if (found and f"{scheme}://" != CLIENT) or not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise NoCluster(f"{address} is not the address of a Ray cluster", FORMS)
    return host.strip("[]"), int(port)
