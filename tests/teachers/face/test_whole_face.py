"""Whole faces: the square is TalkNet-ASD's, steady and where it should be; asking for faces changes nothing else."""

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teachers.face import patches, whole_face
from teachers.face import tracker as face
from teachers.face.tracker import NoFaceError

SIDE = whole_face.SIDE


@pytest.fixture(scope="module")
def video(clips):
    """u1 [75, 288, 360, 3]."""
    with av.open(str(clips / "clips" / "bbaf2n.mp4")) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def whole(tracker, video):
    return tracker.track(video[:60], whole_faces=True)


def boxes(frames, left=100.0, top=50.0, width=80.0, height=100.0):
    return np.tile([left, top, left + width, top + height], (frames, 1))


def test_a_square_reaches_as_far_as_the_published_one():
    (left, top, side) = whole_face.squares(boxes(3))[1]
    s, x, y = 50, 140, 100  # half the longer side, centre
    assert (left, left + side) == pytest.approx((x - 1.4 * s, x + 1.4 * s))
    assert (top, top + side) == pytest.approx((y - s, y + 1.8 * s))


def test_what_lasts_less_than_half_a_second_does_not_move_a_square():
    odd = boxes(40)
    odd[10:16] += [30, -20, 60, 10]
    odd[39] += 25  # at the end, too
    np.testing.assert_allclose(whole_face.squares(odd), whole_face.squares(boxes(40)))
    moved = boxes(40)
    moved[20:] += 10
    assert whole_face.squares(moved)[[0, -1], 0] == pytest.approx([70, 80])


def test_a_short_run_has_squares_too():
    assert whole_face.squares(boxes(1)).shape == (1, 3)


@settings(max_examples=60, deadline=None)
@given(st.floats(-300, 500), st.floats(-300, 400), st.floats(20, 700), st.integers(0, 40), st.booleans())
def test_a_crop_is_the_same_from_a_piece_of_the_frame(x, y, side, more, grey):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (180, 220, 3), dtype=np.uint8)
    square = np.array([x, y, side])
    (needed,) = whole_face.extent(square[None])
    expected = whole_face.crop(image, square, (0, 0), needed)
    left, top = max(int(needed[0]) - more, 0), max(int(needed[1]) - more, 0)
    piece = image[top : max(int(needed[3]) + more, 0), left : max(int(needed[2]) + more, 0)]
    if grey:
        piece = patches._grey(piece)
    np.testing.assert_array_equal(whole_face.crop(piece, square, (left, top), needed), expected)


@pytest.mark.parametrize("side", [60.0, 112.0, 150.0, 437.5])
def test_pixels_of_a_crop_lie_where_the_square_says(side):
    """On a slope of grey: a pixel's value is the place of its middle."""
    image = np.broadcast_to((np.arange(600) / 3).astype(np.uint8), (600, 600))
    square = np.array([40.25, 30.0, side])
    found = whole_face.crop(image, square, (0, 0), whole_face.extent(square[None])[0])
    expected = (square[0] + (np.arange(SIDE) + 0.5) * side / SIDE) / 3
    assert np.abs(found[50] - expected).max() < 1.2
    assert np.abs((found[50] - expected).mean() + 1 / 3) < 0.2  # thirds that were cut off the slope


def test_beyond_the_picture_is_the_published_grey():
    image = np.full((100, 100), 200, np.uint8)
    for square, inside in ((np.array([-56.0, 0, 112]), 200), (np.array([500.0, 500, 112]), whole_face.OUTSIDE)):
        found = whole_face.crop(image, square, (0, 0), whole_face.extent(square[None])[0])
        assert (found[:90, :50] == whole_face.OUTSIDE).all()
        assert found[50, 80] == inside


def test_large_faces_are_shrunk_by_all_their_pixels():
    """Of a chequered picture only its mean is left, not the squares that samples happened to hit."""
    image = (np.indices((900, 900)).sum(axis=0) % 2 * 255).astype(np.uint8)
    square = np.array([10.0, 10.0, 8.0 * SIDE - 30])
    found = whole_face.crop(image, square, (0, 0), whole_face.extent(square[None])[0])
    assert np.abs(found.astype(int) - 127).max() < 20


def test_asking_for_faces_changes_nothing_else(tracker, video, whole):
    plain = tracker.track(video[:60])
    assert plain.face is None
    for name in ("mouth", "lips", "blendshapes", "detected", "interpolated"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(plain, name))


def test_faces_are_whole_upright_and_steady(tracker, whole):
    """The landmarker finds the face in its own crop, from the upper edge on, in the middle, at 1 / 1.4 of its size."""
    assert whole.face.shape == (60, SIDE, SIDE)
    assert whole.face.dtype == np.uint8
    assert not whole.interpolated.any()
    found = tracker.track(np.repeat(whole.face[..., None], 3, axis=-1))
    assert found.detected.all()
    with tracker._backend.landmarker(1) as landmarker:
        points = [landmarker.read(np.repeat(x[..., None], 3, axis=-1), 40 * k) for k, x in enumerate(whole.face)]
    points = np.stack([one[0].points for one in points]) * SIDE
    left, top = points.min(axis=1).T
    right, bottom = points.max(axis=1).T
    assert np.abs(top).max() < 6
    assert np.abs(bottom - SIDE / 1.4).max() < 6
    assert np.abs((left + right) / 2 - SIDE / 2).max() < 3
    nose, mouth = points[:, 1], points[:, 13]
    assert (nose[:, 1] < mouth[:, 1] - 4).all()
    assert np.abs(np.diff(points[:, 168], axis=0)).max() < 1  # between the eyes, from frame to frame


def test_frames_without_a_face_are_empty_and_short_gaps_are_filled(tracker, video, whole):
    frames = video[:60].copy()
    frames[20:23] = frames[30:46] = 128
    found = tracker.track(frames, whole_faces=True)
    faced = found.detected | found.interpolated
    assert found.interpolated[20:23].all()
    assert not faced[30:46].any()
    assert not found.face[~faced].any()
    assert (found.face[20:23, 10:70, 10:100] == 128).all()  # the frame's own picture, at a place in between
    assert found.face[faced].any(axis=(1, 2)).all()
    np.testing.assert_array_equal(found.face[:10], whole.face[:10])  # whose smoothing does not reach the gaps


def test_faces_are_the_same_when_no_picture_may_be_kept(tracker, video, whole, monkeypatch):
    passes = []

    class Frames:
        def __iter__(self):
            passes.append(1)
            return iter(video[:60])

    tracker.track(Frames(), whole_faces=True)
    assert len(passes) == 1
    monkeypatch.setattr(face, "KEEP_BYTES", 20 * 60_000)
    found = tracker.track(Frames(), whole_faces=True)
    assert len(passes) == 3  # one further pass for faces and mouths together
    np.testing.assert_array_equal(found.face, whole.face)
    np.testing.assert_array_equal(found.mouth, whole.mouth)


def test_kept_pieces_stay_within_their_bytes(video):
    kept = patches.Patches(100_000, lambda box: whole_face.region(box), grey=True)
    for k in range(10):
        kept.add(k, video[k], [(120, 80, 220, 200)])
    pieces = [piece for found in kept.kept.values() for _, _, piece in found]
    assert pieces
    assert all(piece.ndim == 2 and piece.base is None for piece in pieces)
    assert sum(piece.nbytes for piece in pieces) + kept.left == 100_000
    assert 0 <= kept.left < pieces[0].nbytes


def test_faces_that_leave_the_picture_are_cropped_all_the_same(tracker, video):
    found = tracker.track([frame[80:230, 110:] for frame in video[:20]], whole_faces=True)
    assert (found.face[:, -1, 56] == whole_face.OUTSIDE).all()
    with pytest.raises(NoFaceError):
        tracker.track(np.zeros((15, 90, 90, 3), np.uint8), whole_faces=True)
