"""Where weights are looked for, checksums, and downloads that break."""

import errno
import hashlib
import http.server
import os
import pickle
import subprocess
import sys
import threading

import filelock
import pytest

from teachers.files import weights
from teachers.files.weights import Package, WeightsError, resolve

CONTENT = bytes(range(256)) * 3000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Empty $CONCORD_WEIGHTS and cache, and a package "shipping" on the path that ships model.bin."""
    user, module = tmp_path / "user", tmp_path / "site" / "shipping"
    user.mkdir()
    module.mkdir(parents=True)
    (module / "__init__.py").write_text("raise RuntimeError('looking for weights must not import the package')\n")
    (module / "model.bin").write_bytes(b"packaged")
    monkeypatch.setenv("CONCORD_WEIGHTS", str(user))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path


@pytest.fixture
def server():
    """A server on loopback: breaks off its first `breaks` answers halfway, resumes if `resumes`; keeps the requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            wanted = self.headers.get("Range")
            state.requests.append(wanted)
            if self.path != "/model.bin":
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and state.resumes else 0
            if start >= len(CONTENT):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            rest = CONTENT[start:]
            if state.breaks > 0:
                state.breaks -= 1
                rest = rest[: len(rest) // 2]
            self.wfile.write(rest)

        def log_message(self, *args):
            """Tests need no access log."""

    state = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.requests, state.breaks, state.resumes = [], 0, True
    state.url = f"http://127.0.0.1:{state.server_port}/model.bin"
    thread = threading.Thread(target=state.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    state.shutdown()
    thread.join()
    state.server_close()


def test_first_place_that_has_them_wins(places, server):
    package = Package("shipping", "shipping", "model.bin")
    given = places / "given.bin"
    given.write_bytes(b"given")
    (places / "user" / "model.bin").write_bytes(b"user")
    cached = weights.cached_path("model.bin", server.url)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"cached")

    def found(path=None):
        return resolve("model.bin", path=path, package=package, url=server.url).path.read_bytes()

    assert found(given) == b"given"
    assert found() == b"user"
    (places / "user" / "model.bin").unlink()
    assert found() == b"cached"
    cached.unlink()
    assert found() == b"packaged"
    (places / "site" / "shipping" / "model.bin").unlink()
    assert found() == CONTENT
    assert cached.read_bytes() == CONTENT
    assert found() == CONTENT
    assert server.requests == [None]  # the second time it is in the cache


def test_what_is_nowhere_says_where_to_put_it(places):
    with pytest.raises(WeightsError, match=r"no weights 'absent\.pt'.*CONCORD_WEIGHTS.*install shipping"):
        resolve("absent.pt", package=Package("shipping", "shipping", "absent.pt"))
    with pytest.raises(WeightsError, match="does not exist"):
        resolve("absent.pt", path=places / "absent.pt")


def test_weights_of_one_name_from_two_urls_are_kept_apart(places, server):
    other = weights.cached_path("model.bin", server.url.replace("/model.bin", "/noise/model.bin"))
    other.parent.mkdir(parents=True)
    other.write_bytes(b"from another folder")
    found = resolve("model.bin", url=server.url)
    assert found.path.read_bytes() == CONTENT
    assert found.source == server.url
    known = resolve("model.bin", url=server.url, sha256=SHA256)
    assert known.path == weights.cache_dir() / "model.bin"


def test_home_is_found_in_paths_and_a_relative_cache_is_not_taken(places, monkeypatch):
    monkeypatch.setenv("HOME", str(places / "user"))
    (places / "user" / "own.pt").write_bytes(b"own")
    assert resolve("own.pt", path="~/own.pt").path.read_bytes() == b"own"
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert weights.cache_dir() == places / "user" / ".cache" / "concord-av"


def test_wrong_checksum_names_path_expected_and_found(places):
    path = places / "user" / "model.bin"
    path.write_bytes(b"damaged")
    found = hashlib.sha256(b"damaged").hexdigest()
    with pytest.raises(WeightsError) as caught:
        resolve("model.bin", sha256=SHA256)
    assert all(part in str(caught.value) for part in (str(path), SHA256, found))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_checksum_is_remembered_until_the_file_changes(places):
    path = places / "model.bin"
    path.write_bytes(b"one")
    assert weights.sha256_of(path) == hashlib.sha256(b"one").hexdigest()
    memory = weights.cache_dir() / "checksums.json"
    memory.write_text(memory.read_text().replace(hashlib.sha256(b"one").hexdigest(), "remembered"))
    assert weights.sha256_of(path) == "remembered"
    path.write_bytes(b"other")
    assert weights.sha256_of(path) == hashlib.sha256(b"other").hexdigest()


def test_unwritable_cache_costs_only_time(places, monkeypatch):
    blocked = places / "file"
    blocked.write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))  # no folder can be made here
    assert weights.sha256_of(blocked) == hashlib.sha256(b"").hexdigest()


def test_converted_weights_are_made_once_and_watched(places):
    calls = []

    def convert(source):
        calls.append(source)
        return source.read_bytes().upper()

    package = Package("shipping", "shipping", "model.bin", convert=convert)
    first = resolve("model.pt", package=package)
    assert first.path.read_bytes() == b"PACKAGED"
    assert first.sha256 == hashlib.sha256(b"packaged").hexdigest()  # what the conversion's own form does not change
    assert "converted" in first.source
    assert resolve("model.pt", package=package) == first
    assert len(calls) == 1
    first.path.write_bytes(b"damaged!")
    with pytest.raises(WeightsError, match="checksum mismatch"):
        resolve("model.pt", package=package)


def test_conversion_that_fails_leaves_nothing(places, monkeypatch):
    def convert(source):
        raise ValueError("not a model")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "disk full")

    with pytest.raises(ValueError, match="not a model"):
        resolve("model.pt", package=Package("shipping", "shipping", "model.bin", convert=convert))
    package = Package("shipping", "shipping", "model.bin", convert=lambda source: b"whole")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)  # after the bytes, before the name
        with pytest.raises(OSError, match=r"shipping-.*\.pt cannot be written: disk full"):
            resolve("model.pt", package=package)
    names = {path.name for path in weights.cache_dir().iterdir() if not path.name.endswith(".lock")}
    assert names == {"checksums.json"}


def test_one_process_at_a_time_makes_a_file_and_its_death_frees_the_next(places):
    path = weights.cache_dir() / "model.pt"
    code = f"from pathlib import Path; from teachers.files import weights; lock = weights.lock(Path({str(path)!r}))\n"
    holder = subprocess.Popen(
        [sys.executable, "-c", code + "with lock: print('held', flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(filelock.Timeout):
        weights.lock(path).acquire(blocking=False)
    holder.kill()
    holder.communicate()
    with weights.lock(path):
        pass


def test_broken_download_goes_on_where_it_stopped(tmp_path, server):
    server.breaks = 1
    weights.download(server.url, tmp_path / "model.bin", sha256=SHA256, pause_s=0)
    assert (tmp_path / "model.bin").read_bytes() == CONTENT
    assert server.requests == [None, f"bytes={len(CONTENT) // 2}-"]
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


def test_server_that_cannot_resume_sends_all_again(tmp_path, server):
    server.breaks, server.resumes = 1, False
    weights.download(server.url, tmp_path / "model.bin", sha256=SHA256, pause_s=0)
    assert (tmp_path / "model.bin").read_bytes() == CONTENT


def test_next_run_goes_on_with_what_an_earlier_one_left(tmp_path, server):
    server.breaks = weights.ATTEMPTS
    with pytest.raises(WeightsError, match="failed"):
        weights.download(server.url, tmp_path / "model.bin", sha256=SHA256, pause_s=0)
    assert not (tmp_path / "model.bin").exists()
    weights.download(server.url, tmp_path / "model.bin", sha256=SHA256, pause_s=0)
    assert (tmp_path / "model.bin").read_bytes() == CONTENT
    assert server.requests[-1] != "bytes=0-"
    assert server.requests[-1] is not None


def test_remains_longer_than_the_file_are_thrown_away(tmp_path, server):
    (tmp_path / "model.bin.download").write_bytes(CONTENT + b"more")
    weights.download(server.url, tmp_path / "model.bin", sha256=SHA256, pause_s=0)
    assert (tmp_path / "model.bin").read_bytes() == CONTENT


def test_download_of_wrong_content_keeps_nothing(tmp_path, server):
    with pytest.raises(WeightsError, match=f"expected sha256 {'0' * 64}, found {SHA256}"):
        weights.download(server.url, tmp_path / "model.bin", sha256="0" * 64, pause_s=0)
    assert not list(tmp_path.iterdir())


def test_missing_page_is_not_tried_again(tmp_path, server):
    with pytest.raises(WeightsError, match="404"):
        weights.download(server.url + "x", tmp_path / "model.bin", pause_s=0)
    assert len(server.requests) == 1
