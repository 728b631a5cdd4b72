"""Fixtures that more than one test module needs: real clips, and the shared reference data where it exists."""

import os
import signal
import uuid
from collections import defaultdict
from itertools import chain
from pathlib import Path

import hypothesis
import pytest
from object_server import BUCKET, ENVIRONMENT, moto

ROOT = Path(__file__).parent.parent
if "PYTEST_XDIST_WORKER" in os.environ:  # each process has a core; more threads would wait for each other
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
SHARED = Path(os.environ.get("CONCORD_SHARED", ROOT.parent / "shared"))


def _fsync(file):
    """In place of `os.fsync`: nothing here has to outlive a power cut, and a store asks for it hundreds of times. Tests of
    what is asked for watch the calls; commands in processes of their own wait for the disk."""
    os.fstat(file if isinstance(file, int) else file.fileno())


os.fsync = _fsync

# A job in the background gets SIGINT ignored, and the commands that are tested would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile("no deadline", deadline=None)  # a slow machine is not a failure
hypothesis.settings.load_profile("no deadline")


def pytest_addoption(parser):
    parser.addoption(
        "--golden", action="store_true", help="A golden test that is skipped fails where the reference data exist."
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    golden = item.config.getoption("--golden") and item.get_closest_marker("golden")
    if report.skipped and golden and SHARED.is_dir():
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped though {SHARED} is there: {call.excinfo.value}"
    return report


def pytest_terminal_summary(terminalreporter):
    """The time of each package's tests, in all processes together."""
    seconds: dict[str, float] = defaultdict(float)
    for report in chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            seconds["/".join(Path(report.nodeid.partition("::")[0]).parts[1:2])] += report.duration
    told = ", ".join(f"{name.removesuffix('.py')} {s:.0f} s" for name, s in sorted(seconds.items()) if s >= 0.5)
    terminalreporter.write_line(f"time by package: {told}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data (golden arrays, 600 GRID clips); tests that need it skip where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data not found at {SHARED}; set CONCORD_SHARED to its folder")
    return SHARED


@pytest.fixture(scope="session")
def grid(shared: Path) -> Path:
    """600 real GRID clips of one speaker with word times."""
    return shared / "data" / "grid_s1"


@pytest.fixture(scope="session")
def clips() -> Path:
    """Four real GRID clips that the project ships (CC BY 4.0, see their README)."""
    return ROOT / "tests" / "data" / "grid"


@pytest.fixture(scope="session")
def watcher():
    """What watches clips in the face stage, by the default backend; it takes seconds to load."""
    from pipelines.workers.watch import Watcher

    return Watcher()


@pytest.fixture(scope="session")
def tracker(watcher):
    """Its tracker of faces."""
    return watcher.tracker


@pytest.fixture(scope="session")
def s3_address():
    """Address of a local S3 server."""
    with moto() as address:
        yield address


@pytest.fixture
def s3(s3_address: str, monkeypatch) -> str:
    """URL of an empty prefix in a local S3 server's bucket; what the environment must say is set while the test runs."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": s3_address}.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"
