"""A store to look at, and the application that shows it."""

import pytest
from shown_store import make_shown_store

import store


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    return make_shown_store(tmp_path_factory.mktemp("shown") / "s.zarr")


@pytest.fixture(scope="session")
def reader(path):
    return store.open(path)


@pytest.fixture(scope="session")
def shown(reader):
    pytest.importorskip("flask", reason="the extra serve is not installed")
    from store.serve.showing import Shown

    return Shown(reader)


@pytest.fixture(scope="session")
def app(shown):
    from store.serve.app import make_app

    return make_app(shown)
