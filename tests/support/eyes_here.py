"""Predictions whose videos are read in the test's own process, by eyes that are loaded once: a child takes seconds to start.

The child itself, and what happens when it dies, is tested in `tests/student/predict/test_predict.py`.
"""

from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace

import pytest

from pipelines.workers import isolation
from student.predict import evidence
from student.predict.eyes import Eyes


class Here:
    """As `pipelines.workers.isolation.Child`, without a process."""

    def __init__(self, answer):
        self.answer = answer

    def __call__(self, value, limit_s):
        return self.answer(value)

    def close(self):
        pass


@cache
def loaded(arrays, mouth_crops):
    return Eyes(arrays, mouth_crops)


def child(build):
    """In this process, or a real one for eyes that a test made to die."""
    if build.func is not Eyes:
        return isolation.Child(build)
    arrays, mouth_crops = build.args
    return Here(loaded(tuple(arrays), mouth_crops))


@contextmanager
def eyes_here():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "isolation", SimpleNamespace(**{**vars(isolation), "Child": child}))
        yield


@contextmanager
def eyes_apart():
    """As it is outside of tests, within `eyes_here`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "isolation", isolation)
        yield
