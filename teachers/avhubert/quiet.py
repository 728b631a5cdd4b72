"""Imports of packages that reconfigure logging: whatever they do to the root logger is undone."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_import() -> Iterator[None]:
    """Within the block nothing below a warning is logged; afterwards the root logger has its handlers and level again.

    Importing fairseq otherwise adds a handler and sets the level to DEBUG, for every module of the process.
    """
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(disabled)
