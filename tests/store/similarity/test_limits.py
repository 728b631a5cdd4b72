"""Limits hold their shares, count people, and take nothing from a damaged record."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.similarity.grounds import LEAST
from store.similarity.limits import STEPS, Limits, Scores, least_units, one_in
from store.similarity.strangers import CORPORA, NAME, PEOPLE, Length, Strangers

SHARES = st.floats(0.001, 0.5)
VALUES = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=1, max_size=60)


def record(people=40, frames=(25, 75), seed=0, how=PEOPLE, guessed=False):
    """Strangers whose own pairs score .5 and whose swaps score .2, a little less apart at shorter lengths."""
    draw = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), 3)
    lengths = []
    for k in frames:
        spread = 0.5 / math.sqrt(k)
        own, swaps = (mean + spread * draw.standard_normal(len(who)) for mean in (0.5, 0.2))
        lengths.append(Length(k, Scores.of(own.clip(-1, 1), who), Scores.of(swaps.clip(-1, 1), who)))
    return Strangers(how, guessed, ("news",), tuple(lengths), {"5": (4.0, -1.0)})


@given(VALUES, st.data())
def test_with_one_clip_a_person_it_is_the_kth_lowest_score(values, data):
    n, share = len(values), data.draw(SHARES)
    found, k = Scores.of(values).below(share), math.floor(share * (n + 1) + 1e-9)
    if k < 1:
        assert found is None
        return
    exact = sorted(values)[k - 1]
    assert found <= exact  # the stored distribution has steps; it never errs towards more alarms
    assert found >= sorted(values)[max(0, k - 1 - math.ceil(n / STEPS) - 1)]


@given(VALUES, SHARES)
def test_the_upper_limit_mirrors_the_lower(values, share):
    low, high = Scores.of(values).below(share), Scores.of(-np.array(values)).above(share)
    assert (low is None) == (high is None)
    if low is not None:
        assert np.sum(np.array(values) < low) <= share * (len(values) + 1)
        assert np.sum(-np.array(values) > high) <= share * (len(values) + 1)


@given(VALUES, VALUES, SHARES, SHARES)
def test_limits_rise_with_the_rate_and_never_cross(own, swaps, one, other):
    low, high = sorted((one, other))
    few, more = (Limits.of(Scores.of(own), Scores.of(swaps), share) for share in (low, high))
    if few.fake is not None:
        assert more.fake is not None
        assert few.fake <= more.fake
    for found in (few, more):
        if found.fake is not None and found.real is not None:
            assert found.fake <= found.real


@given(VALUES, VALUES, st.floats(-2, 2) | st.sampled_from([math.nan, math.inf, -math.inf]))
def test_a_score_is_one_thing_at_most(own, swaps, score):
    found = Limits.of(Scores.of(own), Scores.of(swaps), 0.3)
    decision = found.decide(score)
    if not math.isfinite(score):
        assert decision == ""
    elif decision == "fake":
        assert score < found.fake
    elif decision == "real":
        assert score > found.real
        assert found.fake is None or score >= found.fake


@pytest.mark.parametrize(("share", "people"), [(0.05, 19), (0.01, 99), (0.1, 9), (0.5, 1)])
def test_too_few_people_hold_no_share(share, people):
    assert least_units(share) == people
    assert Scores.of(np.arange(people)).below(share) is not None
    if people > 1:
        assert Scores.of(np.arange(people - 1)).below(share) is None
    crowd = np.repeat(np.arange(people - 1), 500)  # many clips make no people
    assert people == 1 or Scores.of(np.arange(len(crowd)), crowd).below(share) is None


@pytest.mark.parametrize("clips", [1, 7])
def test_the_rate_holds_for_new_people(clips):
    """People differ, clips of one are alike; over many draws, as many new people fall below as were allowed."""
    draw, share, people = np.random.default_rng(0), 0.05, 60
    beyond = {"below": [], "above": []}
    for _ in range(1500):
        means = draw.standard_normal(people + 1)
        sizes = draw.integers(1, clips + 1, people + 1)
        who = np.repeat(np.arange(people + 1), sizes)
        scores = means[who] + 0.3 * draw.standard_normal(len(who))
        found = Scores.of(scores[who < people], who[who < people])
        new = scores[who == people][0]
        beyond["below"].append(new < found.below(share))
        beyond["above"].append(new > found.above(share))
    for hits in beyond.values():
        assert 0.01 < np.mean(hits) <= share + 3 * math.sqrt(share * (1 - share) / len(hits))


def test_where_both_limits_claim_a_score_neither_is_said():
    own, swaps = Scores.of(np.linspace(0.5, 1, 100)), Scores.of(np.linspace(0, 0.4, 100))
    found = Limits.of(own, swaps)
    assert found.gap
    assert (found.fake, found.real, found.usual) == (swaps.above(0.25), own.below(0.05), True)
    assert [found.decide(x) for x in (0.25, 0.35, 0.45, 0.6)] == ["fake", "", "", "real"]
    near = Limits.of(own, Scores.of(np.linspace(0.2, 0.9, 100)))
    assert (near.gap, near.usual) == (False, False)
    assert near.fake == own.below(0.05)
    few = Limits.of(own, Scores.of([0.1, 0.2]))
    assert (few.fake, few.real, few.usual) == (own.below(0.05), None, False)  # of so few others nothing is usual


def test_shares_in_words():
    assert one_in(0.05) == "1 in 20"
    assert one_in(0.05, "false alarm") == "1 false alarm in 20"
    assert one_in(0.03, "false alarm") == "3 false alarms in 100"


@pytest.mark.parametrize("scores", [[], [math.nan], [1.0, math.inf], [[1.0]]])
def test_what_is_no_score_is_refused(scores):
    with pytest.raises(ValueError, match="finite scores"):
        Scores.of(np.array(scores))


# -- the record --------------------------------------------------------------------------------------------------------


def test_a_record_returns_from_json_with_the_same_limits():
    made = record()
    back = Strangers.of(json.loads(json.dumps({NAME: made.told()})))
    assert not back.lacks
    assert back.people == 40
    for a, b in zip(made.lengths, back.lengths, strict=True):
        assert b.limits().fake == pytest.approx(a.limits().fake, abs=1e-4)
        assert b.limits().real == pytest.approx(a.limits().real, abs=1e-4)
        assert (a.own.units, a.own.clips) == (b.own.units, b.own.clips)
    assert len(json.dumps(made.told())) < 10_000


def test_the_length_is_the_longest_that_the_video_reaches():
    made = record(frames=(25, 50, 125))
    assert [found and found.frames for found in map(made.at, (24, 25, 124, 125, 9000))] == [None, 25, 50, 125, 125]


def test_few_people_corpora_and_no_record_license_nothing():
    assert f"{LEAST - 1} people" in record(people=LEAST - 1).lacks
    assert record(people=LEAST - 1).at(100) is None
    assert "whose people are not known" in record(how=CORPORA).lacks
    assert record(how=CORPORA).at(100) is None
    assert Strangers.of({}) is None
    assert Strangers.of(None) is None


GOOD = record().told()
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=5), x, max_size=4),
    max_leaves=6,
)
PLACES = [("how",), ("guessed",), ("corpora",), ("lengths",), ("maps",), ("maps", "5"), ("lengths", 0),
          ("lengths", 1, "frames"), ("lengths", 0, "joined"), ("lengths", 0, "own"), ("lengths", 0, "own", "levels"),
          ("lengths", 0, "own", "levels", 3), ("lengths", 1, "swaps", "units"), ("lengths", 1, "swaps", "clips")]  # fmt: skip


@given(JUNK, st.none() | st.sampled_from(PLACES))
def test_a_foreign_record_raises_nothing_and_licenses_no_number_that_is_none(junk, place):
    note = json.loads(json.dumps(GOOD)) if place else junk
    if place:
        inside = note
        for step in place[:-1]:
            inside = inside[step]
        inside[place[-1]] = junk
    found = Strangers.of({NAME: note})
    if found is None:
        assert note is None
        return
    json.dumps(found.told(), allow_nan=False)
    json.dumps(found.summary(), allow_nan=False)
    for length in found.lengths:
        assert all(math.isfinite(x) for x in (*length.own.levels, *length.swaps.levels, *length.line()))
    if not found.lacks:
        assert found.at(1000).units >= LEAST


@pytest.mark.parametrize(
    "damage",
    [
        lambda note: note["lengths"][0]["own"]["levels"].reverse(),
        lambda note: note["lengths"][0]["own"]["levels"].pop(),
        lambda note: note["lengths"][0]["own"]["levels"].__setitem__(0, -1.5),
        lambda note: note["lengths"].reverse(),
        lambda note: note["lengths"][1]["own"].update(units=10**30),
        lambda note: note["lengths"][1]["own"].update(units=60, clips=59),
        lambda note: note["maps"].update({"5": [-1.0, 0.0]}),
        lambda note: note.update(how="trust me"),
        lambda note: note.pop("guessed"),
    ],
)
def test_a_damaged_record_is_empty_and_says_so(damage):
    note = json.loads(json.dumps(GOOD))
    damage(note)
    found = Strangers.of({NAME: note})
    assert found.lengths == ()
    assert "damaged" in found.lacks
    assert found.at(1000) is None
