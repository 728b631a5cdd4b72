"""Asking a machine: the checks run in a process of their own there, and what came back."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelines.doctor.machine import Finding

TIMEOUT_S = 300.0  # of the checks of one node: a cold disk takes a minute to import torch
HERE = "this machine"
NAMES = 4  # nodes named in one line


@dataclass(frozen=True)
class Answer:
    """A finding and whose it is: a node's, or the cluster's as a whole."""

    node: str
    finding: Finding


def asker() -> Callable[[str, float], tuple[int, str, str]]:
    """A function that runs the checks where it is called: (exit code, standard output, standard error). It is defined in here
    so that it travels by value: a node without our package must be able to say so."""

    def ask(request: str, timeout_s: float) -> tuple[int, str, str]:
        import os
        import subprocess

        # Ray hides a node's GPUs from tasks that asked for none.
        env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        command = [
            sys.executable,
            "-P",
            "-m",
            "pipelines.doctor.checks",
        ]  # what is installed, not what lies in the folder
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
