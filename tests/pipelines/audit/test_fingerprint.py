"""Fingerprints of content: copies coded anew are found, other sentences of the same speaker never are."""

import awkward
import cv2
import numpy as np
import planted
import pytest

from pipelines.audit import fingerprint
from pipelines.media.picture import Video
from pipelines.media.sound import decode_sound


def decoded(path):
    """Sound i2 and thumbnails f4 of a clip."""
    video = Video(path)
    grey = [cv2.resize(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY), (64, 64), interpolation=cv2.INTER_AREA) for f in video]
    return decode_sound(path, video.start_s, video.num_frames).samples, fingerprint.shrink(np.stack(grey))


def printed(sound, thumbs):
    return fingerprint.of(sound, thumbs, len(thumbs) / 25)


@pytest.fixture(scope="module")
def four(clips):
    return [decoded(path) for path in sorted((clips / "clips").iterdir())]


CODINGS = [
    *planted.OTHERS[1:3],
    *(pytest.param(c, marks=pytest.mark.slow) for c in (planted.OTHERS[0], *planted.OTHERS[3:])),
]


@pytest.mark.parametrize("coding", CODINGS, ids=lambda c: f"{c.container}-{c.audio}")
def test_copies_coded_anew_have_the_key_of_their_original(tmp_path, clips, four, coding):
    paths = sorted((clips / "clips").iterdir())
    copies = [
        planted.write(tmp_path / path.stem, awkward.frames_of(path), awkward.sound_of(path), coding)
        for path in paths[:2]
    ]
    prints = [printed(*one) for one in four] + [printed(*decoded(path)) for path in copies]
    assert fingerprint.keys(prints) == [0, 1, 2, 3, 0, 1]
    assert fingerprint.keys(prints[::-1]) == [0, 1, 2, 3, 0, 1]
    assert fingerprint.keys(prints, labels=[0, 0, 0, 0, 1, -1]) == [0, 1, 2, 3, 4, 1]


def test_both_picture_and_sound_must_agree(four):
    (a, picture), (b, other) = four[:2]
    prints = [printed(a, picture), printed(b, picture), printed(a, other), printed(a, picture)]
    assert fingerprint.keys(prints) == [0, 1, 2, 0]


def test_another_length_is_other_content(four):
    sound, thumbs = four[0]
    assert fingerprint.keys([printed(sound, thumbs), fingerprint.of(sound, thumbs, 3.5)]) == [0, 1]


def test_still_pictures_are_compared_as_they_are(four):
    stills = [np.repeat(thumbs[:1], 75, 0) for _, thumbs in four]
    other = np.ascontiguousarray(stills[0][:, ::-1])
    prints = [printed(four[0][0], still) for still in (stills[0], stills[0] * 0.9 + 5, other)]
    assert fingerprint.keys(prints) == [0, 0, 2]


def test_silence_and_short_clips_have_no_print(four):
    sound, thumbs = four[0]
    assert printed(np.zeros(48000, np.int16), thumbs) is None
    assert printed(sound[:16000], thumbs) is None
    assert printed(sound, thumbs[:0]) is None
    late = np.concatenate([np.zeros(40000, np.int16), sound[:16000]])
    assert printed(late, thumbs) is None
    assert fingerprint.keys([None, None]) == [None, None]
    assert fingerprint.keys([]) == []


def test_silence_in_front_makes_no_two_clips_alike(four):
    prints = [printed(np.concatenate([np.zeros(24000, np.int16), sound]), thumbs) for sound, thumbs in four]
    assert fingerprint.keys(prints) == [0, 1, 2, 3]


def test_noise_of_many_clips_is_never_one_content():
    rng = np.random.default_rng(0)
    thumbs = rng.uniform(0, 255, (75, 16, 16)).astype(np.float32)
    prints = [printed(rng.normal(0, 3000, 48000).astype(np.int16), thumbs) for _ in range(60)]
    assert fingerprint.keys(prints) == list(range(60))


def test_many_copies_are_one_content(four):
    prints = [printed(*one) for one in four[:2]] * 150
    assert fingerprint.keys(prints) == [0, 1] * 150


@pytest.mark.slow
@pytest.mark.golden
def test_sentences_of_one_speaker_are_never_one_content(grid):
    prints = [printed(*decoded(path)) for path in sorted((grid / "clips").iterdir())[:60]]
    assert fingerprint.keys(prints) == list(range(60))
