"""What strangers score by a detector: only people whom training had not seen, each length with enough of them."""

import json

import numpy as np
import pytest

from store.similarity.limits import RATE
from store.similarity.strangers import NAME, Strangers
from student.header import MOST_LOGIT
from student.predict.ruling import Ruling
from student.run.state import Best, Validation
from student.scoring.score import Trial
from student.scoring.strangers import measured


def case(people=30, lengths=(80,), taught=()):
    """Clips of people, two each, and trials: each clip as it is, and with the sound of the next person's."""
    names = [f"p{k % people}" for k in range(2 * people)]
    identities = np.array([json.dumps([name]) for name in [*names, *taught]], object)
    clips = {"identities": identities, "corpus": np.array(["c"] * len(identities), object)}
    train = np.arange(2 * people, len(identities))
    trials = []
    for k in range(2 * people):
        other, length = (k + 1) % (2 * people), lengths[k % people % len(lengths)]
        trials.append(Trial(f"{k}", k, k, 0, 0, length, 0, "real"))
        trials.append(Trial(f"{k}s", k, other, 0, 0, length, 1, "made swap"))
    logits = np.array([3.0 * t.label + 0.01 * t.lips for t in trials])
    return clips, train, trials, logits


def test_counts_people_new_to_training():
    found = measured(*case(people=40, taught=["p0", "p1", "p2"]))
    [length] = found.lengths
    assert (length.frames, length.own.units, length.own.clips) == (75, 37, 74)
    assert length.swaps.units == 36  # the sound of p0 is known, so the lips of p39 have no swap but those
    limits = length.limits(RATE)
    assert limits.decide(0.0) == "real"
    assert limits.decide(-3.4) == "fake"


@pytest.mark.parametrize("people", [1, 19])
def test_with_too_few_people_there_is_none(people):
    assert measured(*case(people=people)) is None
    assert measured(*case(people=30, taught=[f"p{k}" for k in range(12)])) is None


@pytest.mark.parametrize("forged", [1, 8, 9])
def test_real_people_license_fake_and_forged_ones_real(forged):
    clips, train, trials, logits = case()
    kept = [k for k, t in enumerate(trials) if t.label == 0 or t.lips < forged]
    [length] = measured(clips, train, [trials[k] for k in kept], logits[kept]).lengths
    assert (length.units, length.swaps.units) == (30, forged)
    limits = length.limits(RATE)
    assert limits.decide(-4.0) == "fake"
    assert limits.decide(9.0) == ("real" if forged == 9 else "")
    told = Ruling(Strangers("leave people out", False, ("c",), (length,)), RATE, "detector").decide(9.0, 80)
    assert told.decision == ("real" if forged == 9 else "cannot decide")
    assert forged == 9 or f"takes 9 people that the detector had not seen, and {forged} were measured" in told.message
    reals = [k for k, t in enumerate(trials) if t.label == 0]
    assert measured(clips, train, [trials[k] for k in reals], logits[reals]) is None


def test_nobody_named_is_nobody_new():
    clips, train, trials, logits = case()
    clips["identities"] = np.array(["[]"] * len(clips["identities"]), object)
    assert measured(clips, train, trials, logits) is None


def test_lengths_with_too_few_people_are_kept_with_others():
    one = measured(*case(people=60, lengths=(80, 30)))
    assert [(x.frames, x.units) for x in one.lengths] == [(25, 30), (75, 30)]
    two = measured(*case(people=60, lengths=(80, 80, 80, 80, 80, 30)))  # ten people have short clips
    assert [(x.frames, x.units) for x in two.lengths] == [(25, 60)]
    three = measured(*case(people=60, lengths=(80, 130, 130, 130, 130, 130)))
    assert [(x.frames, x.units) for x in three.lengths] == [(75, 60)]


def test_the_best_detectors_record_survives_its_checkpoint():
    found = measured(*case())
    figures = Validation(trials=9, auc=0.9, brier=0.1, strangers=found)
    best = Best(figures.rank, 1, 1, "x", figures)
    told = json.loads(json.dumps(best.to_json()))
    assert Best.parse(told).figures.strangers.told() == found.told()
    assert NAME not in best.shown()
    assert NAME not in figures.to_json()
    assert Best.parse({k: v for k, v in told.items() if k != NAME}).figures.strangers is None
    assert Strangers.of({NAME: found.told()}, MOST_LOGIT).people == 30
