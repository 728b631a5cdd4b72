"""Fixtures that more than one test module needs: real clips, and the shared reference data where it exists."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data (golden arrays, 600 GRID clips); tests that need it skip where it is missing."""
    path = Path(os.environ.get("CONCORD_SHARED", ROOT.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"reference data not found at {path}; set CONCORD_SHARED to its folder")
    return path


@pytest.fixture(scope="session")
def grid(shared: Path) -> Path:
    """600 real GRID clips of one speaker with word times."""
    return shared / "data" / "grid_s1"


@pytest.fixture(scope="session")
def clips() -> Path:
    """Four real GRID clips that the project ships (CC BY 4.0, see their README)."""
    return ROOT / "tests" / "data" / "grid"
