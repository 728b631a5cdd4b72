"""The mouth alignment against the published one, and its properties."""

import numpy as np
import pytest

from teachers.face import align

GOLDEN_STABLE = [33, 36, 39, 42, 45]


@pytest.mark.golden
@pytest.mark.parametrize("case", ["float16f", "int14f_gaps", "short5f"])
def test_equals_the_published_alignment(shared, case):
    with np.load(shared / "golden" / "mouth_alignment.npz") as golden:
        given = {name.partition("/")[2]: golden[name] for name in golden.files if name.startswith(f"{case}/")}
    points, interpolated = align.fill_gaps(given["landmarks"], given["detected"])
    np.testing.assert_allclose(points, given["landmarks_interpolated"], atol=1e-9)
    assert (interpolated == ~given["detected"]).all()
    stable = points[:, GOLDEN_STABLE]
    np.testing.assert_allclose(align.smooth(stable), given["smoothed_stable"], atol=1e-9)
    transform = align.transforms(stable)
    np.testing.assert_allclose(transform, given["transform_3x3"][:, :2], atol=1e-9)

    corner = align.corners(align.apply(transform, points[:, 48:68]))
    source = align.to_source(transform, corner)
    rgb = np.ascontiguousarray(given["frames_bgr_u8"][..., ::-1])
    crops = np.stack([align.crop(frame, back) for frame, back in zip(rgb, source, strict=True)])
    difference = np.abs(crops.astype(int) - given["crops_gray_u8"])
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.golden
def test_constants_are_those_of_the_mean_face(shared):
    with np.load(shared / "golden" / "mouth_alignment.npz") as golden:
        mean_face = golden["mean_face"]
        assert (golden["std_size"] == align.FRAME).all()
        assert (golden["crop_hw"] == align.CROP).all()
        assert golden["window_margin"] == align.WINDOW
        assert golden["stable_ids"].tolist() == GOLDEN_STABLE
    np.testing.assert_array_equal(align.MEAN_STABLE, mean_face[GOLDEN_STABLE])
    np.testing.assert_allclose(align.MEAN_MOUTH, mean_face[48:68].mean(axis=0), atol=1e-12)


def test_similarity_undoes_a_known_one():
    rng = np.random.default_rng(3)
    angle, scale, shift = 0.3, 2.5, np.array([40.0, -7.0])
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    target = rng.normal(size=(5, 2)) * 30 + 128
    source = target @ rotation.T + shift
    found = align.similarities(source[None], target)
    np.testing.assert_allclose(align.apply(found, source[None])[0], target, atol=1e-9)


def test_similarity_never_mirrors():
    target = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 5.0], [3.0, 3.0], [8.0, 1.0]])
    (found,) = align.similarities((target * [-1, 1])[None], target)
    assert np.linalg.det(found[:, :2]) > 0


def test_gaps_up_to_the_limit_are_filled_and_longer_ones_are_not():
    found = np.ones(60, bool)
    found[:12] = found[20:32] = found[40:53] = False
    values = np.arange(60.0)[:, None] * found[:, None]
    filled, interpolated = align.fill_gaps(values, found)
    assert (filled[:12, 0] == 12).all()  # copied from the first detection
    np.testing.assert_allclose(filled[20:32, 0], np.arange(20, 32))  # on the line between both sides
    assert interpolated[:12].all()
    assert interpolated[20:32].all()
    assert not interpolated[40:53].any()  # 13 frames are too many
    assert (filled[40:53] == 0).all()


def test_no_detection_at_all_fills_nothing():
    filled, interpolated = align.fill_gaps(np.ones((5, 2)), np.zeros(5, bool))
    assert not filled.any()
    assert not interpolated.any()


@pytest.mark.parametrize(("mask", "expected"), [([], []), ([1, 1], [(0, 2)]), ([0, 1, 0, 1, 1, 0], [(1, 2), (3, 5)])])
def test_runs_are_half_open(mask, expected):
    assert align.runs(np.array(mask, bool)) == expected


def test_smoothing_looks_ahead_and_repeats_the_last_window():
    stable = np.repeat(align.MEAN_STABLE[None], 20, axis=0)
    stable[15:] += 12  # moves at frame 15: window of frame 4 (4..15) is the first to see it
    shift = align.transforms(stable)[:, 0, 2]
    np.testing.assert_allclose(shift[:4], 0, atol=1e-9)
    assert shift[4] == pytest.approx(-1)
    assert (shift[9:] == shift[8]).all()


def test_crop_of_a_part_is_the_crop_of_the_whole():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (288, 360, 3), np.uint8)
    for angle, scale, corner in [(0.1, 0.8, (100, 60)), (-0.7, 1.7, (200, 180)), (0.0, 1.0, (-30, 250))]:
        linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        source = np.concatenate([linear, np.array(corner)[:, None]], axis=1)
        left, top, right, bottom = (max(int(value), 0) for value in align.extent(source[None])[0])
        part = image[top:bottom, left:right]
        np.testing.assert_array_equal(align.crop(part, source, (left, top)), align.crop(image, source))


def test_crop_outside_the_picture_is_black():
    source = np.array([[1.0, 0.0, -500.0], [0.0, 1.0, -500.0]])
    assert not align.crop(np.full((50, 60, 3), 255, np.uint8), source).any()


def test_crop_corner_stays_inside_the_mean_face_frame():
    mouth = np.broadcast_to(np.array([[[10.0, 300.0]], [[128.5, 129.5]]]), (2, 20, 2))
    assert align.corners(mouth).tolist() == [[0, 160], [80, 82]]  # rounded halves go to the even number
