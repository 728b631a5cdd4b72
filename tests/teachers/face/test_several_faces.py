"""Pictures of changing sizes, faces that leave and return, small faces, and tracks of several people."""

from copy import copy

import numpy as np
import people
import pytest

from teachers.face import align, backends, detector, tracks
from teachers.face import tracker as face
from teachers.face.reading import faces_in
from teachers.face.tracker import FaceTracker, NoFaceError

SMALL_CASES = ["small_face_corner_1080p.mp4", "small_face_far_1080p.mp4"]


@pytest.fixture(scope="module")
def film(clips):
    return people.pictures(clips / "clips" / "bbaf2n.mp4")


@pytest.fixture(scope="module")
def plain(tracker, film):
    return tracker.track(film)


@pytest.fixture(scope="module")
def stranger(shared):
    """Another person than the clips', of the size of their pictures."""
    path = shared / "data" / "wild" / "clips" / "real0013.mp4"
    if not path.exists():
        pytest.skip(f"{path} is missing")
    found = people.pictures(path)[:75]
    return [people.scaled(picture, 280 / picture.shape[0])[:, :360] for picture in found]


def proportions(lips):
    """Width of the lips by their height, f4 [frames]."""
    return np.ptp(lips[..., 0], axis=1) / np.ptp(lips[..., 1], axis=1)


CHANGES = {
    "grows": lambda p, k: people.scaled(p, 0.25 if k < 25 else 2),
    "turned into portrait": lambda p, k: p if k < 25 else people.scaled(p[:, 60:290], 2),
    "shrinks twice": lambda p, k: people.scaled(p, (1.5, 1, 0.5)[min(k // 25, 2)]),
    "moves as it changes": lambda p, k: people.placed((660, 288), (p, 0, 0)) if k < 30 else p,
    "lies on its side": lambda p, k: p if k < 30 else np.ascontiguousarray(np.rot90(p)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_track_goes_on_where_pictures_change_their_size(tracker, film, plain, name):
    found = tracker.track([CHANGES[name](picture, k) for k, picture in enumerate(film)], whole_faces=True)
    assert found.detected.all()
    assert found.num_faces == 1
    np.testing.assert_allclose(proportions(found.lips), proportions(plain.lips), rtol=0.35)
    assert np.abs(np.median(proportions(found.lips)) - np.median(proportions(plain.lips))) < 0.1
    assert np.abs(found.lips - plain.lips).mean() < 2
    assert found.face.any(axis=(1, 2)).all()


def test_lips_are_those_of_a_film_that_does_not_change_its_size(tracker, film):
    """Up to the change, whose frames are aligned with those behind it, and after it."""
    whole = tracker.track(film[:60])
    changed = tracker.track([*film[:30], *(people.scaled(picture, 2) for picture in film[30:60])])
    off = np.abs(changed.lips - whole.lips).mean(axis=(1, 2))
    assert off[:30].max() < 0.5  # pixels of the mean face
    assert off[30:].mean() < 0.5
    alone = tracker.track([people.scaled(picture, 2) for picture in film[30:60]])
    np.testing.assert_array_equal(changed.mouth[30:], alone.mouth)


def test_crops_in_a_second_pass_are_the_same_where_sizes_change(tracker, film, monkeypatch):
    frames = [people.scaled(picture, 0.5 if k < 20 else 1) for k, picture in enumerate(film[:40])]
    kept = tracker.track(frames, whole_faces=True)
    monkeypatch.setattr(face, "KEEP_BYTES", 0)
    again = tracker.track(frames, whole_faces=True)
    np.testing.assert_array_equal(kept.mouth, again.mouth)
    np.testing.assert_array_equal(kept.face, again.face)


@pytest.mark.parametrize("whole", [False, True])
def test_crops_that_are_made_early_are_the_same(tracker, film, whole, monkeypatch):
    """Also around gaps, and where the size changes."""
    frames = [p if not (30 <= k < 36 or 50 <= k < 66) else np.full_like(p, 90) for k, p in enumerate(film)]
    frames += [people.scaled(p, 0.8) for p in film]
    passes = []

    class Frames:
        def __iter__(self):
            passes.append(1)
            return iter(frames)

    late = tracker.track(frames, whole)
    monkeypatch.setattr(face, "EARLY_BYTES", 1)
    monkeypatch.setattr(face, "EARLY_FRAMES", 7)
    early = tracker.track(Frames(), whole)
    for name in ("mouth", "lips", "blendshapes", "detected", "interpolated", *(["face"] if whole else [])):
        np.testing.assert_array_equal(getattr(early, name), getattr(late, name))
    assert len(passes) == 1


def test_gaps_are_filled_within_a_size_alone():
    found = np.array([1, 1, 0, 0, 0, 0, 1, 1], bool)
    parts = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    values = np.arange(8.0)
    align.Gaps.of(found, parts).fill(values)
    assert values.tolist() == [0, 1, 1, 1, 6, 6, 6, 7]
    assert align.Gaps.of(found, np.array([0, 0, 1, 1, 1, 1, 2, 2])).rows.tolist() == []
    long = np.repeat([True, False, True], [3, align.MAX_GAP + 1, 3])
    assert align.Gaps.of(long, (np.arange(len(long)) > 9).astype(int)).rows.tolist() == []


@pytest.mark.parametrize("scale", [0.7, 1.0])
def test_a_face_that_leaves_and_returns_elsewhere_goes_on(tracker, film, scale):
    frames = [
        people.placed(
            (720, 288), (None if 25 <= k < 45 else people.scaled(p, 1 if k < 25 else scale), 0 if k < 25 else 350, 0)
        )
        for k, p in enumerate(film)
    ]
    found = tracker.follow(frames)
    assert len(found.tracks) == 1
    seen = found.seen(0)
    assert seen.detected[:24].all()
    assert not seen.detected[25:45].any()
    assert not seen.interpolated.any()  # the gap is long
    assert seen.detected[47:].all()


def test_a_face_that_jumps_is_not_interpolated_between_the_places(tracker, film, plain):
    """A cut to another picture of the same person. The frame after it may still be read at the old place; what follows must
    not move the crops before it."""
    frames = [people.placed((720, 288), (p, 0 if k < 36 else 355, 0)) for k, p in enumerate(film)]
    found = tracker.track(frames)
    assert found.detected.sum() >= 74
    alone = tracker.track(frames[:36])
    np.testing.assert_array_equal(found.mouth[:25], alone.mouth[:25])
    assert np.abs(found.lips - plain.lips).mean() < 1


@pytest.mark.parametrize("left", [360, 40])
def test_another_person_who_comes_later_is_not_joined(tracker, film, stranger, left):
    frames = [
        people.placed((720, 288), (film[k], 0, 0) if k < 25 else (stranger[k] if k >= 45 else None, left, 4))
        for k in range(75)
    ]
    found = tracker.follow(frames)
    assert sorted(len(track.parts) for track in found.tracks) == [1, 1]
    assert not found.seen(0).detected[:25].any()
    assert found.num_faces == 1


def test_several_who_may_be_the_same_are_not_joined(tracker, film):
    """Two faces of one person leave and return at other places: nobody knows which is which."""
    other = film[::-1]
    frames = []
    for k in range(75):
        people_now = [(film[k], 0, 0), (other[k], 400, 0)] if k < 25 else [(film[k], 200, 300), (other[k], 560, 300)]
        frames.append(people.placed((920, 588), *([] if 25 <= k < 45 else people_now)))
    found = tracker.follow(frames)
    assert [len(track.parts) for track in found.tracks] == [1, 1, 1, 1]
    assert found.num_faces == 2


def test_candidates_come_with_the_most_prominent_first(tracker, film):
    frames = people.side_by_side([people.scaled(p, 0.6) for p in film[:30]], film[30:60])
    found = tracker.follow(frames)
    assert found.num_faces == 2
    large, small = (found.seen(i) for i in (0, 1))
    assert large.track.boxes[0, 0] > 216 > small.track.boxes[0, 0]
    assert large.height > 1.4 * small.height
    crops = found.cropped([small, large])
    assert [one.mouth.any(axis=(1, 2)).all() for one in crops] == [True, True]
    np.testing.assert_array_equal(crops[1].lips, large.lips)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if "corner" in name else []) for name in SMALL_CASES]
)
@pytest.mark.parametrize("backend", backends.BACKENDS)
def test_small_faces_of_the_cases_are_found(shared, name, backend):
    if backend not in backends.installed():
        pytest.skip(f"{backend} is not installed")
    frames = people.pictures(shared / "cases" / name)
    found = FaceTracker(backend=backend).track(frames)
    assert found.detected.all()
    assert found.height == pytest.approx(67 if "corner" in name else 33, abs=3)


@pytest.mark.parametrize(("size", "scale", "left", "top"), [
    ((1920, 1080), 0.3, 40, 30), ((1920, 1080), 0.3, 900, 960), ((1280, 720), 0.25, 1100, 20), ((1080, 1920), 0.3, 500, 1500),
    ((3840, 2160), 0.6, 3500, 1900), ((640, 480), 0.25, 300, 200),
])  # fmt: skip
def test_small_faces_are_found_wherever_they_are(tracker, film, size, scale, left, top):
    frames = [people.placed(size, (people.scaled(p, scale), left, top)) for p in film[:14]]
    found = tracker.track(frames)
    assert found.detected.all()
    assert found.height == pytest.approx(127 * scale, rel=0.25)


def test_a_small_face_that_comes_late_or_moves_is_followed(tracker, film):
    """It comes within a search's distance, is followed as it moves, and found anew at once where it jumps."""

    def frame(k):
        left = 100 + 6 * k if k < 45 else 1500
        return people.placed((1920, 1080), (people.scaled(film[k], 0.35) if k >= 8 else None, left, 500))

    found = tracker.track([frame(k) for k in range(70)])
    first = int(np.flatnonzero(found.detected)[0])
    assert 8 <= first <= 8 + detector.EVERY
    assert found.detected[first:44].all()
    assert found.detected[48:].all()


class Counting:
    """A backend that counts its searches."""

    def __init__(self, own):
        self.own, self.name, self.searches = own, own.name, []

    def __getattr__(self, name):
        return getattr(self.own, name)

    def search(self, frame):
        self.searches.append(int(frame[0, 0, 0]))
        return self.own.search(frame)


def test_ordinary_clips_pay_nothing_for_searches_and_others_a_bounded_number(film, tracker):
    tracker = copy(tracker)
    tracker._backend = counting = Counting(tracker._backend)
    tracker.track(film[:40])
    assert counting.searches == []
    empty = [np.full((90, 160, 3), k, np.uint8) for k in range(250)]
    with pytest.raises(NoFaceError):
        tracker.track(empty)
    assert counting.searches == [0, 12, 24, 36, 48, 60, 72, 84, 96, 108, 158, 208]
    counting.searches.clear()
    with pytest.raises(NoFaceError):
        tracker.track(empty[:1] * 250)
    assert counting.searches == [0]  # one picture


def test_a_short_gap_is_not_searched(film, tracker):
    tracker = copy(tracker)
    tracker._backend = counting = Counting(tracker._backend)
    frames = [p if not 20 <= k < 20 + align.MAX_GAP else np.full_like(p, k) for k, p in enumerate(film[:45])]
    assert tracker.track(frames).interpolated.sum() == align.MAX_GAP
    assert counting.searches == []


@pytest.mark.parametrize("backend", backends.BACKENDS)
def test_one_picture_shows_a_face_or_not(film, backend):
    if backend not in backends.installed():
        pytest.skip(f"{backend} is not installed")
    own = FaceTracker(backend=backend)._backend
    small = people.placed((1280, 720), (people.scaled(film[0], 0.3), 700, 400))
    for picture, height in ((film[0], 135), (small, 40)):
        (one,) = faces_in(own, picture)
        assert np.ptp(one.points[:, 1]) * picture.shape[0] == pytest.approx(height, abs=8)
    noise = np.random.default_rng(1).integers(0, 255, (20, 36, 3)).astype(np.uint8)
    for nothing in (np.full((360, 640, 3), 120, np.uint8), people.scaled(noise, 20)):
        assert faces_in(own, nothing) == []


def test_looks_tell_people_apart(film, stranger, tracker):
    def look_of(frames):
        return tracker.follow(frames[:12]).tracks[0].looks[0]

    own, later, other = look_of(film), look_of(film[40:]), look_of(stranger)
    assert float((own * later).sum()) > tracks.SAME_LOOK
    assert float((own * other).sum()) < tracks.OTHER_LOOK
    small = [people.scaled(p, 0.4) for p in film[:12]]
    assert float((own * look_of(small)).sum()) > tracks.SAME_LOOK
