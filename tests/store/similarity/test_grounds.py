"""What a calibration rests on: records of any origin, and counts of people."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.similarity import grounds
from store.similarity.grounds import LEAST, Grounds

MANY = Grounds(real=200, speakers=40, strangers=40, alarms=0.02)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.dictionaries(
    st.sampled_from(["real", "clips", "which", "speakers", "strangers", "alarms"]), x, max_size=6)))  # fmt: skip
def test_a_foreign_note_raises_nothing(note):
    found = Grounds.of(note)
    assert found.real >= 0
    json.dumps(found.told(), allow_nan=False)


def test_twenty_is_where_one_alarm_in_twenty_can_be_told():
    assert 1 / (LEAST + 1) < 0.05
    assert 1 / (LEAST - 2 + 1) > 0.05


def test_old_notes_and_unlabelled_clips():
    assert Grounds.of({"clips": 54, "which": "real train and val clips"}).real == 54
    assert Grounds.of({"clips": 54, "which": "unlabelled clips"}).real == 0
    assert Grounds.of({"clips": 54, "which": "forged clips, for want of others"}).real == 0


def test_people_are_named_by_identities_alone():
    assert grounds.people(['["a", "b"]', "[]", "", "junk", "3", '["a"]']) == ["a", "", "", "", "", "a"]
    assert grounds.count(["a", "", "b"], ["b"]) == (2, 1)
    assert grounds.count(["", ""], []) == (None, None)


@pytest.mark.parametrize(
    "change",
    [
        {"real": 30}, {"strangers": 41}, {"real": 1e308}, {"speakers": 10**400}, {"strangers": math.inf}, {"real": True},
        {"real": 200.5}, {"speakers": -1, "strangers": None},
    ],
)  # fmt: skip
def test_counts_that_cannot_be_license_nothing(change):
    assert not Grounds.of(MANY.told()).lacks_for_strangers()
    assert Grounds.of({**MANY.told(), **change}).lacks_for_strangers()
