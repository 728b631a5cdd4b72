"""Measures the media of many clips (`pipelines.audit.measurer`) in child processes.

A file that crashes or hangs ffmpeg costs a child process and is a fault (`pipelines.workers.isolation`). The outcome does not
depend on the number of workers.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.audit import nuisances
from pipelines.audit.measurer import NUMBERS, WORDS, Measured, Measurer
from pipelines.corpora.faults import ClipFault
from pipelines.corpora.manifest import Row
from pipelines.workers import isolation
from pipelines.workers.work import reason_of, traceback_of

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


def run(
    rows: Sequence[Row],
    workers: int | None = None,
    options: Mapping[str, str] | None = None,
    clip_timeout: float | None = None,
) -> Iterator[Measured]:
    """The result of `Measurer` for each row, in order; `workers` child processes (None: one per core) divide the work.

    A clip that crashes its child, or takes longer than `clip_timeout` seconds (as in precompute), gets the fault crash,
    killed or timeout and no numbers.
    """
    workers = min(workers or len(os.sched_getaffinity(0)), max(len(rows), 1))
    children: SimpleQueue[isolation.Child] = SimpleQueue()
    started: list[isolation.Child] = []
    pool = ThreadPoolExecutor(workers)

    def measured(row: Row) -> Measured:
        child = children.get()
        try:
            return child(row, isolation.limit_s(0, clip_timeout))
        except isolation.ChildLost as error:
            return Measured(
                faults=[ClipFault(error.reason, row.id, f"{row.path}: {error}; check the file or leave it out")]
            )
        except Exception as error:  # an unexpected error in one clip must not affect the others
            log.debug("%s:\n%s", row.path, traceback_of(error))
            text = f"{row.path}: {type(error).__name__}: {error}"
            return Measured(faults=[ClipFault(reason_of(error), row.id, text)])
        finally:
            children.put(child)

    try:
        for child in pool.map(isolation.Child, [partial(_build, options)] * workers):
            started.append(child)
            children.put(child)
        yield from pool.map(measured, rows)
    finally:
        for child in started:  # a signal, or nobody wants the rest: it ends now, not after the clips at hand
            child.stop()
        pool.shutdown(cancel_futures=True)
        for child in started:
            child.close()


def table(found: Iterable[Measured]) -> pd.DataFrame:
    """One row per clip: NUMBERS as floats, NaN if unknown, WORDS as text, None if unknown, and facts (`nuisances.facts`)."""
    import pandas as pd

    found = list(found)
    values = [one.values for one in found]
    columns: dict[str, Any] = {name: np.array([v.get(name, np.nan) for v in values], np.float64) for name in NUMBERS}
    columns |= {name: pd.array([v.get(name) for v in values], dtype=object) for name in WORDS}
    return pd.DataFrame(
        columns | nuisances.facts([{fault.kind for fault in one.faults} if one.values else None for one in found])
    )


def _build(options: Mapping[str, str] | None) -> Callable[[Row], Measured]:
    return Measurer(options)
