"""Most of these tests ask for answers, not for a process that reads the videos."""

import pytest
from eyes_here import eyes_here


@pytest.fixture(scope="package", autouse=True)
def in_this_process():
    with eyes_here():
        yield
