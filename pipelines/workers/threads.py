"""One thread for each numerical library of a worker: many workers share a machine, and the order of sums is fixed."""

from __future__ import annotations

import os
import sys

THREADS = 1
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ONE_EACH = dict.fromkeys(VARIABLES, str(THREADS))


def fix_threads() -> None:
    """Limit every library that this process has loaded, and those that it loads later.

    Call it after the models are loaded: libraries that are loaded later read the limit from the environment.
    """
    os.environ.update(ONE_EACH)
    if "torch" in sys.modules:  # do not import it, which takes two seconds, for a worker without a network
        sys.modules["torch"].set_num_threads(THREADS)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(THREADS)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))
