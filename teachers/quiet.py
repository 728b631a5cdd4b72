"""Keeping libraries quiet: what C++ writes to standard error, and what imports do to the root logger."""

import logging
import os
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


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the C++ side's remarks (four lines a clip, no switch for them) off standard error; errors come as exceptions."""
    kept = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
