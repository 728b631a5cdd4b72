"""Speech in another rhythm: pitch stays, syllables fall where they are wanted, levels and peaks are kept."""

import numpy as np
import pytest

from pipelines.forging import stretch
from store.layout import SAMPLE_RATE

SECOND = np.arange(SAMPLE_RATE) / SAMPLE_RATE


def syllables(starts_s: list[float], length_s: float, pitch: float) -> np.ndarray:
    """f4: tones of 0.2 s that begin at these times, over faint noise."""
    sound = np.random.default_rng(0).normal(0, 20, round(length_s * SAMPLE_RATE))
    tone = 8000 * np.sin(2 * np.pi * pitch * SECOND[:3200]) * np.hanning(3200)
    for start in starts_s:
        at = round(start * SAMPLE_RATE)
        sound[at : at + 3200] += tone
    return sound.astype(np.float32)


def pitch_of(sound: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(spectrum.argmax() * SAMPLE_RATE / len(sound))


@pytest.mark.parametrize("speed", [0.6, 1.0, 1.7])
def test_a_stretched_tone_keeps_its_pitch(speed):
    tone = (8000 * np.sin(2 * np.pi * 220 * np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE)).astype(np.float32)
    moments = np.arange(round(SAMPLE_RATE / speed)) * speed
    found = stretch.stretched(tone, moments)
    assert len(found) == len(moments)
    middle = found[2000:-2000]
    assert pitch_of(middle) == pytest.approx(220, abs=3)
    assert np.abs(middle).max() == pytest.approx(8000, rel=0.05)


def test_at_its_own_moments_a_sound_stays_as_it_is():
    sound = syllables([0.3, 0.9], 2.0, 300)
    found = stretch.stretched(sound, np.arange(len(sound), dtype=float))
    assert np.abs(found - sound)[1000:-1000].max() < 1


def test_syllables_fall_where_the_others_do():
    wanted = syllables([0.3, 0.8, 1.5], 2.2, 200)
    found = stretch.in_rhythm(syllables([0.2, 0.9, 1.3], 2.0, 400), wanted)
    assert len(found) == len(wanted)
    envelopes = stretch.envelope(found), stretch.envelope(wanted)
    assert np.corrcoef(*envelopes)[0, 1] > 0.9


def test_a_sound_much_too_short_is_repeated():
    wanted = syllables([0.3, 0.8, 1.5, 2.5, 3.5], 4.0, 200)
    found = stretch.in_rhythm(syllables([0.2], 0.6, 400), wanted)
    assert len(found) == len(wanted)
    assert np.corrcoef(stretch.envelope(found), stretch.envelope(wanted))[0, 1] > 0.5


def test_levels_are_the_originals_and_nothing_is_clipped():
    like = (syllables([0.3], 1.0, 200) * 3).astype(np.int16)
    quiet = syllables([0.5], 1.0, 400) * 0.01
    found = stretch.at_level(quiet, like)
    loud = np.sqrt(np.square(np.stack([found, like]).astype(float)).mean(1))
    assert loud[0] == pytest.approx(loud[1], rel=0.01)
    click = np.zeros(SAMPLE_RATE)
    click[100] = 1.0
    assert np.abs(stretch.at_level(click, like).astype(int)).max() <= 32767 * stretch.PEAK + 1


def test_a_synthetic_voice_gets_the_background_of_the_room():
    rng = np.random.default_rng(1)
    room = syllables([0.5], 2.0, 200) + rng.normal(0, 100, 2 * SAMPLE_RATE)
    clean = np.zeros(2 * SAMPLE_RATE, np.float32)
    clean[SAMPLE_RATE : SAMPLE_RATE + 3200] = syllables([0.0], 0.2, 200)
    found = stretch.in_room(clean, room, rng)
    assert found[2000:8000].std() == pytest.approx(100, rel=0.25)
