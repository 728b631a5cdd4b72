"""Places for stores, of each kind, and leases that go stale soon."""

import pytest

from store.place import lease, place


@pytest.fixture(params=["folder", "bucket"])
def root(request, tmp_path):
    """A place for a store, of each kind."""
    return root_of(request, tmp_path, request.param)


AT_EACH = [pytest.param(one, marks=pytest.mark.slow) for one in (("bucket", 7), ("folder", 1), ("bucket", 1))]


@pytest.fixture(params=[("folder", 3), ("bucket", 23), *AT_EACH], ids=lambda param: f"{param[0]} at each {param[1]}")
def killed(request, tmp_path):
    """A place for a store, of each kind, and at every how many changes a test kills: there are hundreds, so at each only where
    slow tests run; in a bucket a change is several requests."""
    kind, step = request.param
    return root_of(request, tmp_path, kind), step


def root_of(request, tmp_path, kind):
    return place(tmp_path / "s.zarr" if kind == "folder" else f"{request.getfixturevalue('s3')}/s.zarr")


@pytest.fixture
def quick(monkeypatch):
    """Leases that beat, and go stale, in fractions of a second."""
    for name, seconds in {"BEAT_S": 0.05, "LOST_S": 0.6, "STALE_S": 1.0, "POLL_S": 0.02}.items():
        monkeypatch.setattr(lease, name, seconds)
