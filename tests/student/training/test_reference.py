"""A training run still gives the losses that were written down (`tests/support/reference_run.py`)."""

import json

import pytest
from reference_run import LOSSES, TERMS, TOLERANCE, losses, make_reference_store


def test_lite_still_learns_as_it_was_written_down(tmp_path):
    wanted = json.loads(LOSSES.read_text())
    found = losses(make_reference_store(tmp_path / "s.zarr"), tmp_path / "run")
    assert [line["step"] for line in found] == list(range(1, len(wanted) + 1))
    for ours, theirs in zip(found, wanted, strict=True):
        for term in TERMS:
            assert ours[term] == pytest.approx(theirs[term], rel=TOLERANCE), f"step {ours['step']}: {term}"
    assert found[-1]["loss"] < found[0]["loss"]
