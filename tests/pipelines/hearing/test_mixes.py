"""Of the channels of a sound the mix is taken that carries the voice; ordinary sound keeps the mean."""

import numpy as np
import pytest
from sounds import RATE, Track, hiss, hum, music, write

from pipelines.hearing.listen import Heard, speeches
from pipelines.hearing.mixes import choose_mix, decide, is_silent
from pipelines.media.sound import decode_sound

LATE = RATE // 50  # 20 ms
LEFT, RIGHT, DIFFERENCE = (1.0, 0.0), (0.0, 1.0), (0.5, -0.5)


def delayed(x, samples):
    return np.concatenate([np.zeros(samples, np.float32), x[: len(x) - samples]])


def second_half_inverted(x):
    half = len(x) * 2 // 5  # in the middle of the sentence
    return np.concatenate([x[:half], -x[half:]])


STEREO = {
    "opposite phase": (lambda v: (v, -v), DIFFERENCE, "opposite phase"),
    "partly opposite phase": (lambda v: (v, -0.7 * v), DIFFERENCE, "opposite phase"),
    "opposite phase for a while": (lambda v: (v, second_half_inverted(v)), LEFT, "the left channel was taken"),
    "opposite phase under music": (lambda v: (v + m(v), m(v) - v), DIFFERENCE, "voice alone is in opposite phase"),
    "right silent": (lambda v: (v, 0 * v), LEFT, "left channel alone"),
    "left silent": (lambda v: (0 * v, v), RIGHT, "right channel alone"),
    "hum on the right": (lambda v: (v, hum(len(v), 0.1)), LEFT, "left channel alone"),
    "music on the left": (lambda v: (music(len(v), 0.15), v), RIGHT, "right channel alone"),
    "hiss on the left": (lambda v: (hiss(len(v), 0.1), v), RIGHT, "right channel alone"),
    "right late": (lambda v: (v, delayed(v, LATE)), LEFT, "20.0 ms later"),
    "left late": (lambda v: (delayed(v, LATE), v), RIGHT, "20.0 ms later"),
    "equal": (lambda v: (v, v), None, ""),
    "unequal gains": (lambda v: (v, 0.3 * v), None, ""),
    "very unequal gains": (lambda v: (v, 0.1 * v), None, ""),
    "some room": (lambda v: (v + 0.3 * delayed(v, 900), v + 0.3 * delayed(v, 1300)), None, ""),
    "noisy": (lambda v: (v + hiss(len(v), 0.02, 1), v + hiss(len(v), 0.02, 2)), None, ""),
}


def m(v):
    return music(len(v), 0.05)


@pytest.mark.parametrize("name", STEREO)
@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_the_mix_with_the_voice_is_taken(name, suffix, source, voice, hears, tmp_path):
    make, weights, text = STEREO[name]
    path = write(
        tmp_path / f"clip.{suffix}", source, Track(np.stack(make(voice)), "aac" if suffix == "mp4" else "pcm_s16le")
    )
    sound = decode_sound(path, 0.0, 75)
    mix = choose_mix(path, 1, hears) if sound.odd else None
    assert (mix and mix.weights) == weights
    if mix:
        assert text in mix.text
        sound = decode_sound(path, 0.0, 75, 1, mix)
    expected = decode_sound(source, 0.0, 75).samples.astype(float)
    ours = sound.samples.astype(float)
    if "music" not in name and "room" not in name:  # music on the other channel is gone, but not music under the voice
        assert np.corrcoef(expected, ours)[0, 1] > 0.97
    assert (hears(sound.samples) == hears(expected.astype(np.int16))).mean() > 0.9


def test_equal_channels_cost_no_second_look(source, voice, tmp_path):
    path = write(tmp_path / "clip.mkv", source, Track(np.stack([voice, voice])))
    assert not decode_sound(path, 0.0, 75).odd
    mono = write(tmp_path / "mono.mkv", source, Track(voice[None]))
    assert not decode_sound(mono, 0.0, 75).odd
    assert np.abs(decode_sound(path, 0.0, 75).samples - decode_sound(mono, 0.0, 75).samples).max() <= 1


@pytest.mark.parametrize("channels", [6, 8])
def test_a_voice_in_the_centre_alone_is_taken_from_there(channels, source, voice, hears, tmp_path):
    sound = np.zeros((channels, len(voice)), np.float32)
    sound[2] = voice
    sound[0], sound[1] = music(len(voice), 0.1, 1), music(len(voice), 0.1, 2)
    path = write(tmp_path / "clip.mkv", source, Track(sound, "pcm_s16le" if channels == 8 else "aac"))
    mix = choose_mix(path, 1, hears)
    assert mix is not None
    assert "alone" in mix.text
    ours = decode_sound(path, 0.0, 75, 1, mix).samples.astype(float)
    assert np.corrcoef(decode_sound(source, 0.0, 75).samples.astype(float), ours)[0, 1] > 0.97


def test_without_a_voice_the_louder_channel_is_taken_if_the_mean_loses_the_sound(hears):
    noise = hiss(16_000 * 3, 0.1)
    channels = np.stack([noise, -noise], axis=1)
    piece = Heard(np.zeros(len(noise), np.int16), channels, ("FL", "FR"))
    mix = decide(speeches(piece, hears), piece)
    assert mix is not None
    assert "loses the sound" in mix.text
    apart = np.stack([noise, hiss(len(noise), 0.1, 5)], axis=1)
    piece = Heard((apart.mean(axis=1) * 32768).astype(np.int16), apart, ("FL", "FR"))
    assert decide(speeches(piece, hears), piece) is None


def test_values_that_are_not_finite_are_no_voice(hears):
    channels = np.full((16_000, 2), np.nan, np.float32)
    piece = Heard(np.zeros(16_000, np.int16), channels, ("FL", "FR"))
    assert decide(speeches(piece, hears), piece) is None


def test_the_noise_of_rounding_is_silence():
    assert is_silent(np.zeros(0, np.int16))
    assert is_silent(np.array([0, 8, -8], np.int16))
    assert not is_silent(np.array([0, -32768], np.int16))


def test_opposite_phase_of_the_shared_case_is_heard(shared, hears):
    path = shared / "cases" / "antiphase_stereo.mp4"
    sound = decode_sound(path, 0.0, 75)
    assert sound.odd
    mix = choose_mix(path, 1, hears)
    assert mix is not None
    ours = decode_sound(path, 0.0, 75, 1, mix).samples
    base = decode_sound(shared / "cases" / "first_hiss.mov", 0.0, 75, 2).samples  # the same sentence
    assert np.corrcoef(ours.astype(float), base.astype(float))[0, 1] > 0.95
    assert hears(ours).sum() >= 25
