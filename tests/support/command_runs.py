"""Running commands in tests, and what they leave in a folder."""

import os
from pathlib import Path

from click.testing import CliRunner

ROOT = Path(__file__).parents[2]


def ran(main, *words):
    """The result of a command that is run in this process, whatever cluster the environment names."""
    return CliRunner().invoke(main, [str(word) for word in words], env={"RAY_ADDRESS": None})


def contents(folder):
    """Every file below, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def refused(*words):
    """What precompute says on standard error to a request that it refuses; run in this process."""
    from precompute import main

    done = ran(main, *words)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    return done.stderr
