"""Places for stores, of each kind, and leases that go stale soon."""

import pytest

from store.place import lease, place


@pytest.fixture(params=["folder", "bucket"])
def root(request, tmp_path):
    """A place for a store, of each kind."""
    return root_of(request, tmp_path, request.param)


@pytest.fixture(params=["folder", "bucket at some", pytest.param("bucket at each", marks=pytest.mark.slow)])
def killed(request, tmp_path):
    """A place for a store, of each kind, and at every how many changes a test kills: at each in a folder; in a bucket, where
    that takes hundreds of requests, at every seventh unless slow tests run."""
    kind, _, where = request.param.partition(" ")
    return root_of(request, tmp_path, kind), 7 if where == "at some" else 1


def root_of(request, tmp_path, kind):
    return place(tmp_path / "s.zarr" if kind == "folder" else f"{request.getfixturevalue('s3')}/s.zarr")


@pytest.fixture
def quick(monkeypatch):
    """Leases that beat, and go stale, in fractions of a second."""
    for name, seconds in {"BEAT_S": 0.05, "LOST_S": 0.6, "STALE_S": 1.0, "POLL_S": 0.02}.items():
        monkeypatch.setattr(lease, name, seconds)
