"""A local S3 server (moto) in a process of its own, and a proxy in front of it that fails, for tests of object stores."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "tester",
    "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-tests",
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}
BUCKET = "tests"


@contextmanager
def moto() -> Iterator[str]:
    """Address of a running server that has the bucket `BUCKET`."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            address = next(found[0] for line in server.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
            threading.Thread(target=server.stderr.read, daemon=True).start()  # else its log would fill the pipe
            connection = http.client.HTTPConnection(address.removeprefix("http://"))
            connection.request("PUT", f"/{BUCKET}")
            assert connection.getresponse().status == 200
            connection.close()
            yield address
        finally:
            server.kill()


class Flaky:
    """A proxy that fails the first `times` requests for each object, in the ways `how`, one after the other.

    500, 503: that answer. "drop": the connection ends without one. "half": it ends in the middle of the body. "late": it ends
    after the server has done what was asked.
    """

    def __init__(self, target: str, how: tuple[int | str, ...], times: int = 2):
        self.target, self.how, self.times = target.removeprefix("http://"), how, times
        self.seen: Counter[tuple[str, str]] = Counter()
        self.failed = 0
        self._lock = threading.Lock()

    def fault(self, method: str, path: str) -> int | str | None:
        """What to do wrong with this request, None: nothing."""
        with self._lock:
            key = method, path.partition("?")[0]
            self.seen[key] += 1
            if self.seen[key] > self.times:
                return None
            self.failed += 1
            return self.how[self.failed % len(self.how)]

    @contextmanager
    def running(self) -> Iterator[str]:
        """Address of the proxy while it runs."""
        flaky = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline or not self.parse_request():
                    self.close_connection = True
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = flaky.fault(self.command, self.path)
                if isinstance(fault, int):
                    self.wfile.write(f"HTTP/1.1 {fault} Error\r\nContent-Length: 0\r\n\r\n".encode())
                    return
                if fault == "drop":
                    self._hang_up()
                    return
                connection = http.client.HTTPConnection(flaky.target)
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                connection.request(self.command, self.path, body, {**headers, "Host": self.headers["Host"]})
                answer = connection.getresponse()
                data = answer.read()
                connection.close()
                if fault == "late":
                    self._hang_up()
                    return
                head = f"HTTP/1.1 {answer.status} {answer.reason}\r\n"
                skipped = ("transfer-encoding", "connection", "content-length")
                fields = [(k, v) for k, v in answer.getheaders() if k.lower() not in skipped]
                length = answer.getheader("Content-Length") if self.command == "HEAD" else len(data)
                fields.append(("Content-Length", str(length)))
                self.wfile.write((head + "".join(f"{k}: {v}\r\n" for k, v in fields) + "\r\n").encode("latin-1"))
                if self.command != "HEAD":
                    self.wfile.write(data[: len(data) // 2] if fault == "half" else data)
                if fault == "half":
                    self._hang_up()

            def _hang_up(self) -> None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
