"""Reasons of failures are listed once, and users find each of them explained."""

import re
from pathlib import Path

import pytest

from pipelines.media.files import MediaError
from pipelines.reasons import INFRASTRUCTURE, OVERFLOW, REASONS
from pipelines.workers.plan import Slot
from pipelines.workers.work import Receipt, Work

DOCS = Path(__file__).parents[2] / "docs" / "precompute.md"


def test_the_docs_explain_every_reason_and_no_other():
    table = re.search(r"^\| reason \|.*?\n\n", DOCS.read_text(), re.M | re.S).group()
    cells = [line.split("|")[1] for line in table.splitlines()[2:] if line]
    told = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert told == set(REASONS) - {OVERFLOW}  # after which the same run continues with the clip


def test_reasons_of_the_machine_are_reasons():
    assert set(REASONS) > INFRASTRUCTURE


def test_a_clip_fails_for_a_known_reason_only():
    work = Work("b", [Slot(0, 0, 25, 25)], [None], [Receipt(0, "a", "/a.mp4")])
    with pytest.raises(AssertionError, match="bad_luck"):
        work.fail(0, "decode", "bad_luck", "no")
    with pytest.raises(AssertionError, match="bad_luck"):
        MediaError("bad_luck", "no")
