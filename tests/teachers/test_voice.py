"""Voice activity on real speech, silence and noise."""

import av
import numpy as np
import pytest

from teachers import voice as voice_module
from teachers.voice import VoiceActivity, hysteresis


@pytest.fixture(scope="module")
def voice():
    return VoiceActivity()


def sound(path, frames=75):
    """i2 [640 * frames] of a file; the sound of these clips starts with the picture."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000)
        parts = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    samples = np.concatenate(parts)[: 640 * frames]
    return np.pad(samples, (0, 640 * frames - len(samples)))


def spoken(path):
    """bool [75]: frames whose middle lies in a word, by the .align file (25,000 units a second; the sound lags 35 ms)."""
    middle = (np.arange(75) + 0.5) / 25 - 0.035
    inside = np.zeros(75, bool)
    for line in path.read_text().splitlines():
        start, end, word = line.split()
        if word not in ("sil", "sp"):
            inside |= (middle >= int(start) / 25_000) & (middle < int(end) / 25_000)
    return inside


def test_agrees_with_word_times(voice, clips):
    agreement = [
        (voice.frames(sound(path)) == spoken(clips / "align" / f"{path.stem}.align")).mean()
        for path in sorted((clips / "clips").glob("*.mp4"))
    ]
    assert np.mean(agreement) > 0.93


def test_silence_and_noise_are_no_speech(voice):
    noise = np.random.default_rng(0).normal(0, 1000, 640 * 50).astype(np.int16)
    assert not voice.frames(np.zeros(640 * 50, np.int16)).any()
    assert not voice.frames(noise).any()


def test_same_sound_gives_the_same_answer_whatever_came_before(voice, clips):
    first = sound(clips / "clips" / "bbaf2n.mp4")
    before = voice.probabilities(first)
    voice.frames(sound(clips / "clips" / "lgas5a.mp4"))
    np.testing.assert_array_equal(voice.probabilities(first), before)


def test_one_value_a_frame_for_any_length(voice):
    for frames in (0, 1, 10, 77):
        assert voice.frames(np.zeros(640 * frames, np.int16)).shape == (frames,)


def test_sound_that_is_no_whole_number_of_frames_is_refused(voice):
    with pytest.raises(ValueError, match="641 samples"):
        voice.frames(np.zeros(641, np.int16))


def test_hysteresis_keeps_what_has_begun_and_closes_short_pauses():
    high, middle, low = 0.9, 0.4, 0.1
    given = np.array([middle, high, middle, low, low, high, low, low, low, low, high])
    assert hysteresis(given, fill=2, lead=0).tolist() == [False, *[True] * 5, *[False] * 4, True]


def test_speech_begins_a_little_before_the_voice():
    given = np.array([0.1, 0.1, 0.1, 0.9, 0.1])
    assert hysteresis(given, lead=2).tolist() == [False, True, True, True, False]
    assert hysteresis(given[2:], lead=2).tolist() == [True, True, False]


def test_provenance_tells_the_thresholds(voice):
    assert voice.provenance()["options"].keys() >= {"on", "off", "fill", "lead"}
    assert len(voice.provenance()["sha256"]) == 64


@pytest.mark.parametrize("decibels", [-30, -40, -50, -60])
def test_speech_does_not_depend_on_the_level(voice, clips, decibels):
    differ = []
    for path in sorted((clips / "clips").glob("*.mp4")):
        samples = sound(path)
        quiet = np.round(samples * 10 ** (decibels / 20)).astype(np.int16)
        differ.append(np.mean(voice.frames(quiet) != voice.frames(samples)))
    assert max(differ) <= 0.04


def test_ordinary_sound_is_not_amplified(voice, clips):
    for path in sorted((clips / "clips").glob("*.mp4")):
        assert voice_module._gain(sound(path)) == 1
    assert voice_module._gain(np.array([1, -1, 2], np.int16)) == 1


def test_a_sentence_in_a_silent_minute_is_not_amplified(voice, clips):
    samples = np.zeros(60 * 16_000, np.int16)
    spoken_there = sound(next(iter(sorted((clips / "clips").glob("*.mp4")))))
    samples[: len(spoken_there)] = spoken_there
    assert voice_module._gain(samples) == 1


@pytest.mark.parametrize("level", [1, 10, 100, 1000])
def test_quiet_noise_is_no_speech(voice, level):
    noise = np.round(level * np.random.default_rng(0).standard_normal(640 * 250)).astype(np.int16)
    assert not voice.frames(noise).any()
