"""Three states for strangers' videos: beyond a limit, or between them; the answer quotes what the limits hold."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from store.similarity import Fit, fitfile
from store.similarity.grounds import Grounds
from store.similarity.limits import Scores
from store.similarity.strangers import CORPORA, MAP, NAME, PEOPLE, Length, Strangers
from student.header import Header
from student.predict import page as predict_page
from student.predict import words as predict_words
from student.predict.__main__ import exit_code, line, main
from student.predict.answer import answer
from student.predict.basis import Basis, Detector, basis
from student.predict.records import BETWEEN, UNLICENSED, Judged
from student.predict.ruling import Ruling

PEOPLE_MEASURED = 60


def measured(own=(0.3, 0.9), swaps=(-0.1, 0.5), frames=(25, 75), people=PEOPLE_MEASURED, **about):
    """Strangers whose own pairs and swaps score evenly between two values."""
    lengths = tuple(Length(k, *(Scores.of(np.linspace(*x, people)) for x in (own, swaps))) for k in frames)
    maps = {"5": (8.0, -2.0), "25": (8.0, -2.0)}
    return Strangers(
        **{"how": PEOPLE, "guessed": False, "corpora": ("news",), "lengths": lengths, "maps": maps} | about
    )


def evidence(likeness, frames=75):
    """Projections of a made clip whose lips and voice have about that cosine throughout."""
    rows = np.tile([1.0, 0, 0, 0], (frames, 1)).astype(np.float16)
    lips = np.tile([likeness, math.sqrt(max(0.0, 1 - likeness**2)), 0, 0], (frames, 1)).astype(np.float16)
    on = np.ones(frames, bool)
    word = SimpleNamespace(start_s=0.4, end_s=0.8, text="blue", probability=0.9)
    return SimpleNamespace(
        path="/x.mp4", clip=SimpleNamespace(flags=np.full(frames, 0b11101, np.uint8)), vsr_projection=lips,
        asr_projection=rows, words=[word], start_skew_s=0.0, face=on, evident=on, voice=on, facts=(), unsettled="",
    )  # fmt: skip


def on(strangers, corpus=None, detector=None, alarms=0.05, known=None):
    none = np.zeros(0, np.float32)
    maps = {"grid": dict.fromkeys(("5", "25", "clip"), (8.0, -2.0))}
    fit = Fit("cosine", 0, none, none, none, none, np.ones(4, np.float32), maps)
    return Basis(fit, {}, "here", 0, corpus, detector, {"grid": known or Grounds(500, 1, 0, 0.0)}, strangers, alarms)


def said(seen, basis_, judge=None):
    return answer(seen, basis_.fit, basis_.map_of, basis_.calibration(), judge)


def shown(one):
    return predict_page.page(one, {"teachers": {}, "fit": {"kind": "", "from": ""}, "student": None}, [], None)


@pytest.mark.parametrize("late", [-3, -2, -1, 0, 1, 2, 3])
def test_sound_is_moved_only_as_strangers_were_measured(late):
    seen = evidence(0.0)
    seen.vsr_projection = np.random.default_rng(0).standard_normal((75, 4)).astype(np.float16)
    noise = np.random.default_rng(1).standard_normal((75, 4))
    seen.asr_projection = (np.roll(seen.vsr_projection, late, axis=0) + 4 * noise).astype(
        np.float16
    )  # not clearly elsewhere
    as_it_is, moved = (said(seen, on(measured(within=within))) for within in (0, 2))
    near, far = (one.limits.score for one in (moved, as_it_is))
    assert near >= far
    assert (near > far + 0.15) == (abs(late) in (1, 2))
    assert ("moved by up to 80 ms" in moved.limits.text, "moved" in as_it_is.limits.text) == (True, False)
    assert as_it_is.teachers.similarity == moved.teachers.similarity  # of the file


@pytest.mark.parametrize(("likeness", "decision"), [(0.2, "fake"), (0.4, "cannot decide"), (0.7, "real")])
def test_a_score_in_the_gap_between_real_videos_and_others_is_like_neither(likeness, decision):
    one = said(evidence(likeness), on(measured(own=(0.5, 0.9), swaps=(-0.1, 0.3))))
    assert one.decision == decision
    assert one.limits.gap
    if decision == "cannot decide":
        assert "not as low as in 3 in 4 videos with another sound" in one.message
        assert "as all but 1 in 20 real videos of strangers are" in one.message
        assert "like neither real videos nor others" in predict_words.headline(one)[1]
        assert "nor above the lowest 1 in 20 of their real videos" in predict_words.headline(one)[2]


def test_a_record_of_other_offsets_is_damaged():
    for within in (-1, 3, True, 1.0, "2"):
        note = {NAME: {**measured().told(), "within": within}}
        assert "damaged" in Strangers.of(note).lacks
    assert Strangers.of({NAME: measured(within=2).told()}).within == 2
    assert "within" not in measured().told()  # as earlier releases wrote it


@pytest.mark.parametrize(
    ("likeness", "decision", "reason", "tone"),
    [(0.2, "fake", "", "bad"), (0.42, "cannot decide", BETWEEN, "plain"), (0.7, "real", "", "good")],
)
def test_three_states(likeness, decision, reason, tone):
    one = said(evidence(likeness), on(measured()))
    assert (one.decision, one.reason) == (decision, reason)
    assert (one.probability is None) == bool(reason)
    assert predict_words.headline(one)[0] == tone
    assert exit_code([one]) == (3 if reason else 0)
    limits = one.to_json()["limits"]
    json.dumps(limits, allow_nan=False)
    assert limits["fake_below"] < limits["real_above"]
    assert limits["score"] == pytest.approx(likeness, abs=0.01)
    assert (limits["people"], limits["clips"], limits["frames"]) == (PEOPLE_MEASURED, PEOPLE_MEASURED, 75)
    assert (limits["false_alarms"], limits["misses"], limits["how"]) == (0.05, 0.1, PEOPLE)
    text, body = line(one), shown(one).partition("</style>")[2]
    assert f'<header class="{tone}">' in body
    of_people = "measured on 60 clips of 60 people that the fit had not seen"
    if decision == "fake":
        assert f"(limit for 1 false alarm in 20 real videos of strangers, {of_people})" in text
        assert "1 in 20 real videos of strangers" in body
    elif decision == "real":
        assert f"(limit for 1 miss in 10 videos with another sound, {of_people})" in text
    else:
        assert "cannot decide: between the limits: its score 0.42 is above" in text
        assert "only ranks it" in text
        assert "neither suspected nor cleared" in body
        assert "not a probability of forgery" in body
        for colour in ('class="bad', 'class="good', 'class="warn'):
            assert colour not in body.partition("What this cannot tell")[0].partition('<section class="speech">')[0]


def test_more_false_alarms_make_more_verdicts():
    seen = evidence(0.34)
    assert said(seen, on(measured(), alarms=0.05)).reason == BETWEEN
    one = said(seen, on(measured(), alarms=0.15))
    assert one.decision == "fake"
    assert "15 false alarms in 100" in line(one)
    usual = said(evidence(0.42), on(measured(), alarms=0.4))  # "fake" takes what is usual among other sounds as well
    assert usual.reason == BETWEEN
    assert "not as low as in 3 in 4 videos with another sound" in usual.message


def test_fewer_false_alarms_than_people_can_tell_are_never_fake():
    one = said(evidence(0.0), on(measured(), alarms=0.01))
    assert (one.decision, one.reason) == ("cannot decide", UNLICENSED)
    assert "1 false alarm in 100 takes 99 people that the fit had not seen, and 60 were measured" in line(one)
    assert "99 people" in shown(one)
    assert said(evidence(0.7), on(measured(), alarms=0.01)).decision == "real"


def test_the_length_is_the_longest_that_the_video_reaches():
    assert said(evidence(0.7, 60), on(measured())).limits.frames == 25
    short = said(evidence(0.7, 60), on(measured(frames=(75, 125))))
    assert (short.reason, short.limits) == ("too short", None)
    assert "at least 3.00 s" in short.message


@pytest.mark.parametrize(
    ("strangers", "lacks"),
    [
        (measured(people=19), "measured on 19 people that it had not seen; at least 20 are needed"),
        (measured(how=CORPORA), "whose people are not known"),
        (Strangers("", False, (), ()), "damaged"),
        (None, "calibrated on one speaker"),
    ],
)
def test_without_enough_strangers_there_is_no_verdict(strangers, lacks):
    for likeness in (0.0, 1.0):
        one = said(evidence(likeness), on(strangers))
        assert (one.decision, one.reason, one.limits) == ("cannot decide", UNLICENSED, None)
        assert lacks in one.message
        assert [word.verdict for word in one.words] == ["not judged"]


def test_a_damaged_record_is_not_replaced_by_counts_of_people():
    many = Grounds(real=200, speakers=40, strangers=40, alarms=0.02)
    assert said(evidence(1.0), on(None, known=many)).decision == "real"  # fits of an earlier release
    assert said(evidence(1.0), on(Strangers("", False, (), ()), known=many)).reason == UNLICENSED


def test_a_stated_corpus_is_judged_by_its_own_map():
    one = said(evidence(0.42), on(measured(), corpus="grid"))
    assert (one.decision, one.limits) == ("real", None)
    assert said(evidence(0.42), on(measured(), corpus="other")).reason == BETWEEN  # not calibrated: anybody's video


def test_words_are_judged_by_the_strangers_maps():
    known = on(measured())
    assert known.map_of == MAP
    assert [word.verdict for word in said(evidence(0.7), known).words] == ["agrees"]
    assert [word.verdict for word in said(evidence(0.0), known).words] == ["disagrees"]


def test_people_who_were_guessed_and_clips_that_were_joined_are_said():
    lengths = tuple(replace(length, joined=True) for length in measured().lengths)
    text = line(said(evidence(0.7), on(measured(lengths=lengths, guessed=True))))
    assert "60 people, told apart by looks, that the fit had not seen, joined to this length" in text


# -- detectors ---------------------------------------------------------------------------------------------------------


def detector(strangers=None, **about):
    told = {"model": "lite", "options": {}, "threshold": 0.0, "temperature": 1.0, "window": 25, "config": {}}
    told |= {"fitted_on": "validation, 99 trials"} | ({NAME: strangers.told()} if strangers else {}) | about
    return Detector(None, Header.parse(json.loads(json.dumps(told))), "run", torch.device("cpu"))


@pytest.mark.parametrize(("logit", "decision"), [(2.0, "fake"), (0.0, "cannot decide"), (-2.0, "real")])
def test_a_detector_is_held_to_its_own_limits(logit, decision):
    known = on(None, detector=detector(measured(own=(-0.5, 4.0), swaps=(-4.0, 0.5))))
    one = said(evidence(0.7), known, lambda clip, shift: Judged(0.5, logit, 70))
    assert one.decision == decision
    assert one.limits.score == -logit
    assert one.limits.frames == 25
    assert [word.verdict for word in one.words] == ["not judged"]  # the fit beside it has no licence
    if decision == "fake":
        assert "60 people that the detector had not seen" in line(one)


@pytest.mark.parametrize("note", [None, "x", {}, {"how": PEOPLE}, {**measured().told(), "lengths": [math.inf]}])
def test_a_detectors_damaged_record_licenses_nothing(note):
    many = {"real": 40, "corpora": {"a": 40}, "speakers": 25, "strangers": 25, "alarms": 0.0}
    about = {NAME: note, "calibrated_on": many}
    found = Detector(
        None, replace(detector().header, strangers=Strangers.of(about), grounds=Grounds.of(many)), "", None
    )
    assert bool(found.lacks(None)) == (note is not None)  # without one it is an older detector, judged as it was


# -- the command -------------------------------------------------------------------------------------------------------


def test_a_fit_file_with_strangers_licenses(tmp_path):
    fit, made_by, note = fitfile.default()
    fitfile.save(tmp_path / "f.npz", fit, made_by, {**note, NAME: measured().told()})
    known = basis(None, str(tmp_path / "f.npz"), false_alarms=0.1)
    assert known.calibration().this_kind
    assert known.calibration().speakers == PEOPLE_MEASURED
    assert known.calibration().ruling == Ruling(known.strangers, 0.1)
    told = known.told()
    json.dumps(told, allow_nan=False)
    assert told["false_alarms"] == 0.1
    assert told["strangers"]["people"] == PEOPLE_MEASURED
    assert [length["frames"] for length in told["strangers"]["lengths"]] == [25, 75]
    assert basis(None).told()["strangers"] is None


@pytest.mark.parametrize("share", ["0", "0.6", "-1", "nan", "x"])
def test_a_share_that_is_none_exits_2(share, tmp_path):
    found = CliRunner().invoke(main, [str(tmp_path), "--teacher-only", "--false-alarms", share])
    assert found.exit_code == 2
