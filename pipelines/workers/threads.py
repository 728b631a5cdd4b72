"""One thread for each numerical library of a worker: many workers share a machine, and sums keep one order."""

from __future__ import annotations

import os
import sys

THREADS = 1
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def fix_threads() -> None:
    """Limit every library that this process has loaded, and those that it loads later.

    Call it once the models are loaded: libraries that come later find the limit in the environment.
    """
    os.environ.update(dict.fromkeys(VARIABLES, str(THREADS)))
    if "torch" in sys.modules:  # importing it takes two seconds, which a worker without a network need not spend
        sys.modules["torch"].set_num_threads(THREADS)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(THREADS)
