"""Keeps libraries quiet: messages of C++ code on standard error, and changes of the root logger by imports."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_import() -> Iterator[None]:
    """Within the block only warnings and errors are logged; afterwards the root logger's handlers and level are
    restored.

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
    """Keeps C++ messages (four lines per clip, which cannot be turned off) off standard error; errors are raised as
    exceptions."""
    kept = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
