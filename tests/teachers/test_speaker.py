"""Which face speaks, by the motion of its lips while there is a voice."""

import numpy as np
import pytest

from teachers import speaker

VOICE = np.repeat([False, True, False], [20, 40, 15])
SEEN = np.ones(75, bool)


def lips(opening):
    """Lips f4 [75, 40, 2] whose inner edges are `opening` [75] pixels apart."""
    found = np.zeros((75, 40, 2), np.float32)
    for above, below in speaker.OPENINGS:
        found[:, above, 1], found[:, below, 1] = -np.asarray(opening) / 2, np.asarray(opening) / 2
    return found


def test_motion_counts_while_there_is_a_voice_alone():
    talks = 6 + 4 * np.sin(np.arange(75) * 0.9)
    assert speaker.motion(lips(np.where(VOICE, talks, 6)), SEEN, VOICE) > 1
    assert speaker.motion(lips(np.where(VOICE, 6, talks)), SEEN, VOICE) < 0.1
    assert speaker.motion(lips(np.full(75, 6.0)), SEEN, VOICE) == 0


def test_a_trembling_landmark_is_not_speech():
    trembling = 6 + 0.2 * np.random.default_rng(0).standard_normal(75)
    assert speaker.motion(lips(trembling), SEEN, VOICE) < speaker.SILENT


def test_frames_without_the_face_do_not_count():
    opening = np.where(np.arange(75) % 2, 12.0, 2.0)
    seen = ~VOICE
    assert speaker.motion(lips(opening), seen, VOICE) == 0
    seen[20 : 20 + speaker.MIN_FRAMES - 1] = True
    assert speaker.motion(lips(opening), seen, VOICE) == 0
    assert speaker.motion(lips(opening), SEEN, np.zeros(75, bool)) == 0


@pytest.mark.parametrize(
    ("motions", "expected"),
    [
        ([1.2, 0.1], [0]),
        ([0.1, 1.2], [1]),
        ([0.05, 0.9, 0.2, 1.1], [1, 3]),
        ([1.2, 1.0], [0, 1]),
        ([0.35, 0.2], [0, 1]),  # too near each other
        ([0.1, 0.02], [0, 1]),  # nobody moves his lips
        ([0.7], [0]),
        ([], []),
    ],
)
def test_faces_that_may_speak(motions, expected):
    assert speaker.may_speak(motions) == expected
