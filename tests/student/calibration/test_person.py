"""One person's genuine videos: pieces, limits, errors on held-out pieces, the person's own fit, and what is left out."""

from dataclasses import replace

import numpy as np
import pytest

from store.similarity import Fit
from student.calibration import doubts, person
from student.calibration import recordings as cutting
from student.calibration.limits import limits
from student.calibration.person import NAME, PIECES, Person
from student.calibration.recordings import SHORTEST, Recording

DIMS = 8


def cosine():
    none, empty = np.zeros(0, np.float32), np.zeros((0, DIMS), np.float32)
    return Fit("cosine", 0, none, empty, none, empty, np.ones(DIMS, np.float32), {"c": {"clip": (4.0, 0.0)}})


def recording(seed, frames=250, noise=1.0, gap=(), name=""):
    """Lips that follow the sound with `noise`; nobody speaks in the frames `gap`."""
    draw = np.random.default_rng(seed)
    sound = draw.standard_normal((frames, DIMS)).astype(np.float16)
    lips = (sound + noise * draw.standard_normal((frames, DIMS))).astype(np.float16)
    on = np.ones(frames, bool)
    voice = on.copy()
    voice[list(gap)] = False
    return Recording(name or f"/{seed}.mp4", str(seed), lips, sound, on, voice)


# -- limits ------------------------------------------------------------------------------------------------------------


def test_limits_hold_their_shares():
    draw = np.random.default_rng(0)
    alarms, missed = [], []
    for _ in range(400):
        low, high = limits(draw.normal(1, 1, 40), draw.normal(0, 1, 200))
        alarms.append(np.mean(draw.normal(1, 1, 200) < low))
        missed.append(np.mean(draw.normal(0, 1, 200) >= high))
    assert 0.03 < np.mean(alarms) <= 0.055
    assert 0.08 < np.mean(missed) <= 0.105


def test_where_both_promises_leave_a_gap_one_limit_keeps_both():
    low, high = limits(np.arange(10.0, 40), np.arange(-30.0, 0))
    assert low == high
    assert 0 < low < 10


def test_few_scores_take_the_worst():
    assert limits(np.array([0.5, 0.2, 0.9]), np.array([0.1, 0.6])) == (0.2, 0.6)


def test_rarer_false_alarms_take_more_pieces():
    many = [recording(k, 1000) for k in range(3)]
    strict = Person(many, cosine(), 0.01)
    assert (Person(many, cosine()).needed, strict.needed) == (PIECES, 99)
    assert Person(many, cosine()).at(25).fake > strict.at(25).fake
    assert Person(many[:1], cosine(), 0.01).at(25) is None


# -- pieces ------------------------------------------------------------------------------------------------------------


def test_pieces_are_frames_with_face_and_voice_of_about_that_length():
    pieces = cutting.cut([recording(0, gap=range(50, 100)), recording(1, 60), recording(2, 20)], 50)
    assert [(piece.recording, len(piece.lips)) for piece in pieces] == [(0, 50)] * 4 + [(1, 60)]
    assert not set(range(50, 100)) & set(np.concatenate([p.lips for p in pieces if p.recording == 0]))
    assert len(cutting.cut([recording(0, 5000)], 25, most=30)) == 30


def test_a_moved_recording_pairs_its_lips_with_the_sound_that_fits():
    one = recording(0, noise=0.0)
    late = replace(one, asr=np.roll(one.asr, 2, axis=0), shift=-2)
    pieces = cutting.cut([late], 60)
    assert np.diag(cutting.table([late], pieces, lambda _: cosine())).min() > 0.99


def test_own_pairs_stand_on_the_diagonal_and_shifts_score_as_swaps_do():
    mine = [recording(k) for k in range(3)]
    pieces = cutting.cut(mine, 50)
    scores = cutting.table(mine, pieces, lambda _: cosine())
    apart = ~np.eye(len(pieces), dtype=bool)
    assert scores.shape == (15, 15)
    assert np.diag(scores).min() > scores[apart].max()
    assert np.nanmax(cutting.shifted_scores(mine, pieces, cosine())) < np.diag(scores).min()


# -- calibration -------------------------------------------------------------------------------------------------------


def test_twenty_seconds_are_needed():
    enough = [recording(k) for k in range(2)]  # twice ten seconds
    assert Person(enough, cosine()).at(75).pieces == PIECES
    assert Person(enough, cosine()).at(75, without="1") is None
    assert Person([enough[0]], cosine()).at(75) is None
    assert Person([], cosine()).at(75) is None


def test_pieces_are_as_long_as_the_video_where_the_reference_is_long_enough():
    mine = Person([recording(k, 1000) for k in range(3)], cosine())
    assert mine.at(75).piece_frames == pytest.approx(75, abs=3)
    assert mine.at(5000).piece_frames == pytest.approx(150, abs=10)
    assert mine.at(10).piece_frames == SHORTEST
    assert (mine.at(75).recordings, mine.at(75).seconds) == (3, 120.0)


def test_a_person_who_is_told_apart_is_decided_and_one_who_is_not_is_not():
    clear = Person([recording(k, 500) for k in range(4)], cosine()).at(75)
    assert clear.lacks == ""
    assert clear.errors.false_alarms <= 0.1
    assert clear.errors.misses <= 0.1
    assert clear.errors.decided > 0.9
    blind = Person([recording(k, 500, noise=400.0) for k in range(4)], cosine()).at(75)
    assert blind.lacks or blind.errors.decided < 0.6
    assert blind.fake <= blind.real


def test_the_errors_of_one_odd_recording_are_found_by_leaving_it_out():
    """Nine recordings alike and one whose lips hardly follow: within the limits of all it is hidden, left out it shows."""
    odd = [recording(k, 200, noise=0.5) for k in range(9)] + [recording(9, 400, noise=6.0)]
    pieces = cutting.cut(odd, 50)
    scores = cutting.table(odd, pieces, lambda _: cosine())
    assert set(person.folds(pieces)) == set(range(10))
    none = np.full((1, len(pieces)), np.nan)
    alarms = person.measured(scores, person.folds(pieces), none).false_alarms
    assert alarms >= 7 / len(pieces)
    mixed = person.measured(scores, np.arange(len(pieces)) % 10, none).false_alarms
    assert mixed < alarms


def test_one_recording_is_held_out_in_stretches():
    pieces = cutting.cut([recording(0, 1000)], 50)
    fold = person.folds(pieces)
    assert (np.diff(fold) >= 0).all()
    assert set(fold) == set(range(person.BLOCKS))


def test_a_fit_of_the_persons_own_is_taken_where_it_tells_more():
    """Lips that follow the sound in other columns than the given fit believes."""
    mine = []
    for k in range(4):
        one = recording(k, 600)
        mine.append(replace(one, vsr=one.vsr[:, np.roll(np.arange(DIMS), 1)]))
    eye = np.eye(DIMS, dtype=np.float32)
    given = Fit("cca", 0, np.zeros(DIMS, np.float32), eye, np.zeros(DIMS, np.float32), eye, np.ones(DIMS, np.float32))
    own = Person(mine, given).at(75)
    assert own.is_own
    assert own.fit.kind == "cca"
    assert own.errors.decided > 0.9
    assert not Person(mine[:2], given).at(75).is_own  # 48 s
    assert not Person([recording(k, 600) for k in range(4)], cosine()).at(75).is_own


def test_the_same_recordings_give_the_same_calibration():
    found = [Person([recording(k) for k in range(3)], cosine()).at(75) for _ in range(2)]
    assert (found[0].fake, found[0].real, found[0].errors) == (found[1].fake, found[1].real, found[1].errors)
    assert set(found[0].fit.calibration[NAME]) == {"5", "25", "clip"}


# -- references that look wrong ----------------------------------------------------------------------------------------


def swapped(seed):
    return replace(recording(seed), asr=recording(seed + 100).asr)


def test_a_reference_with_another_sound_is_found():
    assert doubts.disagreeing([recording(0), recording(1), swapped(2), recording(3)], cosine()) == [2]
    assert doubts.disagreeing([recording(k) for k in range(4)], cosine()) == []


def test_genuine_references_that_a_fit_hardly_tells_stay():
    left_out = sum(
        len(doubts.disagreeing([recording(10 * s + k, 100, 4.0) for k in range(5)], cosine())) for s in range(20)
    )
    assert left_out <= 4  # of 100


def test_a_single_reference_must_agree_better_than_chance():
    assert doubts.disagreeing([recording(0)], cosine()) == []
    assert doubts.disagreeing([], cosine()) == []
    assert sum(bool(doubts.disagreeing([swapped(seed)], cosine())) for seed in range(20)) >= 14
