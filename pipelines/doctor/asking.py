"""Runs the checks on a machine in a separate process, and reads their result."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelines.doctor.machine import Finding

TIMEOUT_S = 300.0  # for the checks of one node: with a cold disk it takes a minute to import torch
HERE = "this machine"
NAMES = 4  # nodes named in one line


@dataclass(frozen=True)
class Answer:
    """A finding and its origin: a node, or the cluster as a whole."""

    node: str
    finding: Finding


def asker() -> Callable[[str, float], tuple[int, str, str]]:
    """A function that runs the checks where it is called: (exit code, standard output, standard error). It is an inner
    function so that it is pickled by value: a node without this package must be able to report that."""

    def ask(request: str, timeout_s: float) -> tuple[int, str, str]:
        import os
        import subprocess

        # Ray hides a node's GPUs from tasks that requested none.
        env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        command = [
            sys.executable,
            "-P",
            "-m",
            "pipelines.doctor.checks",
        ]  # the installed package, not the one in the current folder
        try:
            done = subprocess.run(command, input=request, env=env, capture_output=True, text=True, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return 1, "", f"no answer within {timeout_s:.0f} s"
        return done.returncode, done.stdout, done.stderr

    return ask


def findings_of(done: tuple[int, str, str]) -> list[Finding]:
    """Findings of the checks, or one finding that they could not run."""
    status, output, errors = done
    try:
        return [Finding(**finding) for finding in json.loads(output)]
    except (ValueError, TypeError):
        last = next((line for line in reversed(errors.splitlines()) if line.strip()), f"ended with {status}")
        return [Finding("checks", "fail", f"the checks did not run: {last}", "make install, in the project's folder")]


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES]) + (f" and {len(names) - NAMES} more" if len(names) > NAMES else "")
