"""What the tests of AV-HuBERT share."""

import pytest
from small_avhubert import saved, small


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("avhubert") / "tiny.pt", small())
