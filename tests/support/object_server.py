"""A local S3 server (moto) in a process of its own, and a proxy in front of it that fails, for tests of object stores."""

from __future__ import annotations

import http.client
import itertools
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

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
            protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

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


@contextmanager
def gcs() -> Iterator[str]:
    """Address of a server in this process that answers as Google's XML interface does, as far as stores need it: objects
    with generations, conditions on them, ranges, lists."""
    objects: dict[str, tuple[bytes, int]] = {}
    generations, lock = itertools.count(1), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version, disable_nagle_algorithm = "HTTP/1.1", True

        def log_message(self, *args: object) -> None:
            pass

        def answer(self, status: int, data: bytes = b"", length: int | None = None, **fields: object) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data) if length is None else length))
            for name, value in fields.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            self.wfile.write(data)

        def key(self) -> str:
            return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}").removeprefix("/")

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                now = objects.get(self.key(), (b"", 0))[1]
                if self.headers.get("x-goog-if-generation-match", str(now)) != str(now):
                    return self.answer(412)
                objects[self.key()] = data, next(generations)
            return self.answer(200, ETag=f'"{objects[self.key()][1]}"', x_goog_generation=objects[self.key()][1])

        def do_GET(self) -> None:
            if not self.key():
                return self.list()
            if self.key() not in objects:
                return self.answer(404)
            data, generation = objects[self.key()]
            tag = f'"{generation}"'
            if self.headers.get("If-Match", tag) != tag:
                return self.answer(412)
            about = {"ETag": tag, "x_goog_generation": generation, "Last_Modified": "Tue, 24 Nov 2026 12:00:00 GMT"}
            part = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
            if self.command == "HEAD" or not part:
                return self.answer(200, b"" if self.command == "HEAD" else data, len(data), **about)
            begin = int(part[1]) if part[1] else max(0, len(data) - int(part[2]))
            end = min(len(data), int(part[2]) + 1) if part[1] and part[2] else len(data)
            if begin >= len(data):
                return self.answer(416)
            return self.answer(206, data[begin:end], Content_Range=f"bytes {begin}-{end - 1}/{len(data)}", **about)

        do_HEAD = do_GET

        def do_DELETE(self) -> None:
            self.answer(204 if objects.pop(self.key(), None) else 404)

        def list(self) -> None:
            query = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
            prefix, found, folders = query.get("prefix", ""), [], set()
            for key in sorted(k for k in objects if k.startswith(prefix)):
                rest = key[len(prefix) :]
                if "delimiter" in query and "/" in rest:
                    folders.add(prefix + rest.partition("/")[0] + "/")
                else:
                    size, stamp = len(objects[key][0]), "2026-11-24T12:00:00.000Z"
                    found.append(
                        f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size><LastModified>{stamp}</LastModified>"
                        f"<ETag>{objects[key][1]}</ETag></Contents>"
                    )
            found += [f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in sorted(folders)]
            self.answer(200, f"<ListBucketResult>{''.join(found)}</ListBucketResult>".encode())

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
