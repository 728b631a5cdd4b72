"""The face track on real clips, made awkward: gaps, cuts, two faces, odd arrays."""

import pickle

import av
import numpy as np
import pytest

from teachers.face import align, tracks
from teachers.face import tracker as face
from teachers.face.landmarker import Landmarker, image
from teachers.face.tracker import NoFaceError


class Frames:
    """Re-iterable frames that counts how often they are read."""

    def __init__(self, frames):
        self.frames, self.passes = frames, 0

    def __iter__(self):
        self.passes += 1
        return iter(self.frames)


@pytest.fixture(scope="module")
def pictures(clips):
    """{name: u1 [75, 288, 360, 3]} of two clips."""
    found = {}
    for name in ("bbaf2n", "lgas5a"):
        with av.open(str(clips / "clips" / f"{name}.mp4")) as container:
            found[name] = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    return found


@pytest.fixture(scope="module")
def video(pictures):
    return pictures["bbaf2n"]


@pytest.fixture(scope="module")
def plain(tracker, video):
    """The track of the untouched clip, first 40 frames."""
    return tracker.track(video[:40])


def test_real_clip_has_a_face_in_every_frame(plain):
    assert plain.detected.all()
    assert not plain.interpolated.any()
    assert plain.num_faces == 1
    assert plain.mouth.shape == (40, 96, 96)
    assert plain.mouth.dtype == np.uint8
    assert plain.lips.shape == (40, 40, 2)
    assert plain.lips.dtype == plain.blendshapes.dtype == np.float32
    assert plain.blendshapes.shape == (40, 52)
    assert plain.blendshapes.min() >= 0
    assert plain.blendshapes.max() <= 1


def test_mouth_is_upright_centred_and_lies_under_the_lips(plain):
    left, right, top, bottom = (plain.lips[:, i] for i in (0, 10, 5, 15))
    width = right[:, 0] - left[:, 0]
    assert (width > 30).all()  # the mean face's mouth is 45 pixels wide
    assert (width < 60).all()
    assert (np.abs(right[:, 1] - left[:, 1]) < 0.15 * width).all()  # level
    assert (top[:, 1] < bottom[:, 1]).all()  # upright: y grows downwards
    assert np.abs(plain.lips.mean(axis=(0, 1))).max() < 8  # near the mean face's mouth centre, the origin
    # Lips are darker than the skin beside them in this clip: the crop shows them where the landmarks say.
    inner = plain.mouth[:, 44:52, 40:56].mean()
    skin = plain.mouth[:, 44:52, 4:14].mean()
    assert inner < skin - 10


def test_same_clip_gives_the_same_bytes(tracker, video, plain):
    again = tracker.track(video[:40])
    for name in ("mouth", "lips", "blendshapes", "detected"):
        np.testing.assert_array_equal(getattr(again, name), getattr(plain, name))


def test_arrays_that_are_not_contiguous_are_read_right(tracker, video, plain):
    """Rows padded as PyAV pads them at a width of 360; MediaPipe misreads such arrays without a word."""
    wide = np.zeros((40, 288, 384, 3), np.uint8)
    wide[:, :, :360] = video[:40]
    assert not wide[0, :, :360].flags.c_contiguous
    found = tracker.track([frame[:, :360] for frame in wide])
    np.testing.assert_array_equal(found.mouth, plain.mouth)
    np.testing.assert_array_equal(found.lips, plain.lips)


def test_landmarks_are_those_of_the_public_interface(tracker, video):
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=str(tracker._weights.path)),
        running_mode=vision.RunningMode.VIDEO,
        output_face_blendshapes=True,
    )
    with vision.FaceLandmarker.create_from_options(options) as public:
        expected = [public.detect_for_video(image(frame.copy()), 40 * k) for k, frame in enumerate(video[:5])]
    with Landmarker(tracker._weights.path, 1) as ours:
        for k, result in enumerate(expected):
            (face,) = ours.read(video[k].copy(), 40 * k)
            points = [[np.float32(point.x), np.float32(point.y)] for point in result.face_landmarks[0]]
            assert face.points.tolist() == points
            scores = [np.float32(category.score) for category in result.face_blendshapes[0]]
            assert face.blendshapes().tolist() == scores
            assert [category.index for category in result.face_blendshapes[0]] == list(range(52))


def test_short_gaps_are_filled_and_long_ones_stay_empty(tracker, video):
    frames = video[:70].copy()
    frames[:12] = frames[20:23] = frames[40:56] = 128
    found = tracker.track(frames)
    assert found.interpolated[:12].all()
    assert found.interpolated[20:23].all()
    gap = ~(found.detected | found.interpolated)
    assert gap[40:56].all()
    assert gap.sum() <= 18  # the landmarker may need a frame or two to find the face again
    for values in (found.mouth, found.lips, found.blendshapes):
        assert not values[gap].any()
    expected = (np.arange(20, 23) - 19)[:, None, None] / 4 * (found.lips[23] - found.lips[19]) + found.lips[19]
    assert np.abs(found.lips[20:23] - expected).max() < 2  # on the line but for the smoothed transforms
    assert found.detected[60:].all()


def test_transforms_are_not_averaged_across_a_long_gap(tracker, video):
    """What follows the gap must not move the crops before it."""
    frames = video[:60].copy()
    frames[25:40] = 0
    found = tracker.track(frames)
    alone = tracker.track(frames[:25])
    np.testing.assert_array_equal(found.mouth[:25], alone.mouth)


def test_ruined_beginning_of_real_clips_is_interpolated(tracker, grid):
    with av.open(str(grid / "clips" / "bbizzn.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    found = tracker.track(frames)
    assert found.interpolated[:12].all()
    assert found.detected[12:].all()


def test_no_face_and_too_few_are_refused(tracker, video):
    with pytest.raises(NoFaceError, match="0 of 30 frames; at least 10"):
        tracker.track(np.full((30, 120, 160, 3), 90, np.uint8))
    few = np.zeros_like(video[:30])
    few[:5] = video[:5]
    with pytest.raises(NoFaceError, match="5 of 30 frames") as caught:
        tracker.track(few)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    with pytest.raises(NoFaceError):
        tracker.track([])


def test_frames_of_another_kind_are_refused(tracker):
    with pytest.raises(ValueError, match="frame 0 is float64"):
        tracker.track(np.zeros((20, 50, 50, 3)))


def test_crops_are_the_same_when_no_picture_may_be_kept(tracker, video, plain, monkeypatch):
    once = Frames(video[:40])
    tracker.track(once)
    assert once.passes == 1
    monkeypatch.setattr(face, "KEEP_BYTES", 20 * 70_000)  # room for about half of them
    twice = Frames(video[:40])
    np.testing.assert_array_equal(tracker.track(twice).mouth, plain.mouth)
    assert twice.passes == 2


def two_faces(pictures, frames=40):
    """Clip bbaf2n at the left, lgas5a at three quarters of its size at the right: u1 [frames, 288, 640, 3]."""
    import cv2

    canvas = np.full((frames, 288, 640, 3), 40, np.uint8)
    canvas[:, :, :360] = pictures["bbaf2n"][:frames]
    for k in range(frames):
        canvas[k, 40:256, 364:634] = cv2.resize(pictures["lgas5a"][k], (270, 216), interpolation=cv2.INTER_AREA)
    return canvas


def test_larger_of_two_faces_is_followed(tracker, pictures, plain):
    found = tracker.track(two_faces(pictures))
    assert found.num_faces == 2
    assert found.detected.all()
    assert np.abs(found.lips - plain.lips).mean() < 1  # the landmarker smooths several faces otherwise
    difference = np.abs(found.mouth.astype(int) - plain.mouth)
    assert difference.mean() < 4


def test_track_never_goes_over_to_another_face(tracker, pictures):
    """The large face leaves for good; the small one stays all the time."""
    frames = two_faces(pictures, 60)
    frames[36:, :, :360] = 40
    found = tracker.track(frames)
    assert found.detected[:35].all()
    assert found.interpolated[36:].sum() in (0, 24)
    assert not found.detected[38:].any()


def test_larger_face_that_comes_later_is_found(tracker, pictures):
    """For the first 14 frames the small face is alone; a look at one frame a second notices the other."""
    frames = two_faces(pictures, 60)
    frames[:14, :, :360] = 40
    found = tracker.track(frames)
    assert found.num_faces == 2
    assert not (found.detected | found.interpolated)[:14].any()
    assert found.detected[16:].all()


def test_longer_track_wins_where_faces_of_others_follow_each_other(tracker, pictures, monkeypatch):
    """One face at a time, so that a single one is followed: left for 15 frames, then right for 35. The clips show one
    person; here they count as two."""
    monkeypatch.setattr(tracks, "SAME_LOOK", 1.1)
    frames = two_faces(pictures, 50)
    frames[:15, :, 362:] = 40
    frames[15:, :, :360] = 40
    found = tracker.track(frames)
    assert not found.detected[:15].any()
    assert found.detected[18:].all()


def test_lip_indices_are_forty_different_points():
    assert len(set(face.LIPS.tolist())) == 40
    assert set(face.MOUTH.tolist()) <= set(face.LIPS.tolist())
    assert len(face.STABLE) == len(align.MEAN_STABLE)


def test_provenance_names_the_model(tracker):
    record = tracker.provenance()
    assert record["sha256"] == face.MODEL_SHA256
    assert record["name"] == "face_landmarker"
