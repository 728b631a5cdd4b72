"""Places for stores, of each kind, and leases that go stale soon."""

import pytest

from store.place import lease, place


@pytest.fixture(params=["folder", "bucket"])
def root(request, tmp_path):
    """A place for a store, of each kind."""
    return root_of(request, tmp_path)


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def killed_root(request, tmp_path):
    """The same, for tests that kill at each single change: hundreds of requests in a bucket."""
    return root_of(request, tmp_path)


def root_of(request, tmp_path):
    return place(tmp_path / "s.zarr" if request.param == "folder" else f"{request.getfixturevalue('s3')}/s.zarr")


@pytest.fixture
def quick(monkeypatch):
    """Leases that beat, and go stale, in fractions of a second."""
    for name, seconds in {"BEAT_S": 0.05, "LOST_S": 0.6, "STALE_S": 1.0, "POLL_S": 0.02}.items():
        monkeypatch.setattr(lease, name, seconds)
