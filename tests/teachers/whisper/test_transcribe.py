"""Transcripts: what is decoded together, what is dropped, and that nothing is heard where nobody speaks."""

from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from teachers import ClipMedia
from teachers.voice import VoiceActivity
from teachers.whisper import transcribe
from teachers.whisper.block import rows
from teachers.whisper.teacher import Whisper
from teachers.whisper.transcribe import CRAMMED, PAUSE, WINDOW, Word, stretches, timed, voiced_part


@pytest.fixture(scope="module")
def whisper():
    return Whisper("tiny.en")


def decoded(path):
    """Sound of a clip of three seconds: i2 [640 * 75]."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000)
        parts = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return np.concatenate(parts)[: 640 * 75]


@pytest.fixture(scope="module")
def sentence(clips):
    """Sound of a real sentence: i2 [640 * 75]."""
    return decoded(clips / "clips" / "bbaf2n.mp4")


def media(sound):
    """A clip of that sound, with the flags that the pipeline's voice activity gives."""
    frames = len(sound) // 640
    flags = np.full(frames, 0b10101, np.uint8) | VoiceActivity().frames(sound) * np.uint8(0b1000)
    none = np.zeros((frames, 0))
    return ClipMedia("clip", sound, none, none, none, flags)


@settings(deadline=None)
@given(hnp.arrays(bool, st.integers(0, 3000), elements=st.booleans() | st.just(False)))
def test_stretches_hold_every_voiced_frame_once_and_no_long_pause(voiced):
    groups = stretches(voiced)
    covered = np.zeros(len(voiced), int)
    for group in groups:
        for start, stop in group:
            covered[start:stop] += 1
        assert all(b[0] - a[1] < PAUSE for a, b in pairwise(group))
        assert len(group) == 1 or group[-1][1] - group[0][0] <= WINDOW
    np.testing.assert_array_equal(covered, voiced.astype(int))
    assert [group[0][0] for group in groups] == sorted(group[0][0] for group in groups)


def words(*spans):
    return [Word(start, end, "word", 0.5) for start, end in spans]


def test_words_crammed_into_no_time_end_a_window():
    spoken = words((0.0, 0.3), (0.3, 0.7))
    loop = words(*[(0.7, 0.72)] * CRAMMED)
    assert timed(spoken + loop + words((1.0, 1.4))) == spoken
    assert timed(spoken + loop[:-1]) == spoken + loop[:-1]


def test_a_word_is_cut_to_the_voice_it_lies_in():
    runs = [(25, 50), (100, 125)]
    assert voiced_part(Word(0.0, 1.5, "a", 1.0), runs) == Word(1.0, 1.5, "a", 1.0)
    late = voiced_part(Word(4.2, 9.0, "b", 1.0), runs)
    assert late.start_s == 4.2
    assert late.end_s == pytest.approx(127 / 25)
    assert voiced_part(Word(3.0, 3.2, "c", 1.0), runs) is None
    assert voiced_part(Word(3.0, 3.2, "c", 1.0), []) is None


@pytest.mark.parametrize("kind", ["silence", "noise", "tone", "hum"])
def test_nothing_is_heard_where_nobody_speaks(whisper, kind):
    t = np.arange(640 * 250) / 16_000
    sound = {
        "silence": 0 * t,
        "noise": 2000 * np.random.default_rng(0).standard_normal(len(t)),
        "tone": 6000 * np.sin(2 * np.pi * 440 * t),
        "hum": 3000 * sum(np.sin(2 * np.pi * 50 * k * t) / k for k in (1, 2, 3)),
    }[kind].astype(np.int16)
    assert whisper.transcribe([media(sound)])[0] == []


def test_words_lie_where_the_sentence_does_in_long_silence(whisper, sentence):
    sound = np.zeros(640 * 1600, np.int16)
    sound[640 * 1000 : 640 * 1075] = sentence
    found = whisper.transcribe([media(sound)])[0]
    assert 3 <= len(found) <= 9
    assert all(40.0 <= word.start_s <= word.end_s <= 43.2 for word in found)


def test_a_sentence_said_twice_is_heard_twice(whisper, sentence):
    pause = np.zeros(640 * 100, np.int16)
    once = whisper.transcribe([media(sentence)])[0]
    twice = whisper.transcribe([media(np.concatenate([sentence, pause, sentence]))])[0]
    assert len(twice) == 2 * len(once)
    assert [word.text for word in twice[: len(once)]] == [word.text for word in once]


def test_a_decoder_that_loops_is_heard_once(whisper, clips, monkeypatch):
    """Decoded from rows of trimmed sound this sentence comes twice, the second time in no time."""

    def trimmed(mel):
        return rows(whisper._encoder, mel[None, :, : mel.shape[1] // 4 * 4], None)[0]

    decoder_said = []

    def watched(words):
        decoder_said.extend(word.text for word in words)
        return timed(words)

    monkeypatch.setattr(whisper, "_encode", trimmed)
    monkeypatch.setattr(type(whisper._model.encoder), "forward", lambda encoder, rows: rows)
    monkeypatch.setattr(transcribe, "timed", watched)
    given = media(decoded(clips / "clips" / "lgas5a.mp4"))
    given.flags[:] |= 0b1000  # so that nothing is dropped for want of voice
    found = [word.text for word in whisper.transcribe([given])[0]]
    assert decoder_said.count("green") == 2
    assert found == decoder_said[: len(decoder_said) // 2]


def test_what_was_passed_over_in_a_stretch_is_decoded_again(whisper, sentence, monkeypatch):
    """The second of two sentences is made unheard while both are decoded at once."""
    given = media(np.concatenate([sentence, sentence]))
    assert len(stretches((given.flags & 0b1000) > 0)) == 1

    def deaf(word, runs):
        return None if len(runs) == 2 and word.start_s > 3 else voiced_part(word, runs)

    monkeypatch.setattr(transcribe, "voiced_part", deaf)
    found = whisper.transcribe([given])[0]
    assert {word.start_s > 3 for word in found} == {False, True}
    assert all(0.9 <= word.start_s % 3 <= word.end_s % 3 <= 2.3 for word in found)
