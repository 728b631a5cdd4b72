"""A job in the driver: one thread meanwhile, and the caller's threads afterwards."""

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from pipelines.workers import alone


def threads():
    return {pool["num_threads"] for pool in threadpool_info()}, torch.get_num_threads()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    with threadpool_limits(2):
        torch.set_num_threads(2)
        yield
    torch.set_num_threads(before)


def test_a_job_has_one_thread_and_its_caller_its_own_again(two_threads):
    assert threads() == ({2}, 2)
    assert alone.call(threads) == ({1}, 1)
    assert threads() == ({2}, 2)


def test_threads_come_back_after_an_error(two_threads):
    with pytest.raises(np.linalg.LinAlgError):
        alone.call(np.linalg.inv, np.zeros((2, 2)))
    assert threads() == ({2}, 2)
