"""One job on this machine alone, in the driver itself: starting a worker of Ray takes longer than a small job.

Numerical libraries have one thread meanwhile, as in every worker, so that the result has the same bits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from pipelines.workers.threads import THREADS

T = TypeVar("T")
Job = TypeVarTuple("Job")


def call(function: Callable[[*Job], T], *job: *Job) -> T:
    """function(*job), in which numerical libraries use one thread."""
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else THREADS
    try:
        with threadpool_limits(THREADS):
            if torch:
                torch.set_num_threads(THREADS)
            return function(*job)
    finally:
        if torch:
            torch.set_num_threads(before)
