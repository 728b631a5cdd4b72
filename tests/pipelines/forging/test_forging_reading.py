"""Which part of a clip is used: a face that is no profile, without a cut, as long as there is sound."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.corpora.manifest import Row
from pipelines.forging import reading
from pipelines.media.files import MediaError
from pipelines.media.picture import Video
from teachers.face.tracker import NoFaceError

ALIKE = np.full((200, 16, 16), 90, np.uint8)


def test_the_longest_run_with_a_face_is_used():
    faced = np.ones(200, bool)
    faced[70] = False
    assert reading._window(faced, ALIKE, "a.mp4") == (71, 200)
    with pytest.raises(NoFaceError, match=r"a\.mp4: a face is seen in at most 30 frames without a break"):
        reading._window(np.arange(200) < 30, ALIKE, "a.mp4")
    with pytest.raises(MediaError, match=r"a\.mp4 lasts 0\.8 s"):
        reading._window(faced[:20], ALIKE[:20], "a.mp4")


def test_a_window_ends_at_a_cut():
    thumbs = ALIKE.copy()
    thumbs[90:] = np.random.default_rng(0).integers(0, 255, (16, 16))
    assert reading._window(np.ones(200, bool), thumbs, "a.mp4") == (90, 200)


def test_a_window_ends_where_the_sound_ends():
    present = np.ones(200, bool)
    assert reading._with_sound(present, 10, 190, "a.mp4") == (10, 190)
    present[:20] = present[150:] = False
    assert reading._with_sound(present, 10, 190, "a.mp4") == (21, 149)
    with pytest.raises(MediaError, match=r"a\.mp4 has sound for 9 frames of its face"):
        reading._with_sound(np.arange(200) < 20, 10, 190, "a.mp4")


@pytest.mark.parametrize(("nose", "shown"), [(0.5, True), (0.25, True), (0.1, False), (1.2, False)])
def test_profiles_are_not_used(nose, shown):
    face = np.zeros((468, 2))
    face[454] = 100, 20  # a tilted head
    face[1] = nose * face[454]
    assert reading.is_turned_to_us(face) is shown


def test_sizes_are_even_and_at_most_1280():
    assert reading.scaled_size(1080, 1920) == (720, 1280)
    assert reading.scaled_size(239, 121) == (240, 120)


def test_a_file_that_changed_since_it_was_read_is_told_apart(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"a" * 10)
    first = reading.mark(path)
    assert reading.mark(path) == first
    for other in (b"b" + b"a" * 9, b"a" * 9 + b"b", b"a" * 11, b""):
        path.write_bytes(other)
        assert reading.mark(path) != first


def test_pictures_of_a_file_that_changed_are_refused(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes((Path(__file__).parents[2] / "data" / "grid" / "clips" / "bbaf2n.mp4").read_bytes())
    height, width = next(iter(Video(path))).shape[:2]
    given = np.zeros((3, 468, 2), np.float32), np.zeros(1920, np.int16), np.ones(3, bool)
    clip = reading.Clip(*given, 0, (height, width), 1, reading.mark(path))
    clip.save(tmp_path / "a.npz")
    clip = reading.Clip.load(tmp_path / "a.npz")
    assert len(reading.pictures(Row(str(path)), clip)) == 3
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(MediaError, match="has changed since it was read"):
        reading.pictures(Row(str(path)), clip)
