"""Methods that change the sound: speech of another clip, a shift, a synthetic voice."""

from __future__ import annotations

import numpy as np

from pipelines.forging.kinds import Forged, Given
from pipelines.forging.reading import TRIM, Clip
from pipelines.forging.speaking import Said
from pipelines.forging.stretch import at_level, in_rhythm, in_room, stretched
from store.layout import SAMPLE_RATE, SAMPLES_PER_FRAME

SPEEDS = 0.4, 2.5  # of a word of the synthetic voice, at least and at most
JOIN_S = 0.04  # by which words of the synthetic voice may be apart without a silence between them: half of it


def swap(given: Given) -> Forged:
    """Other speech whose syllables fall where the original's do."""
    return Forged(sound=spoken_instead(given, given.other.sound))


def spoken_instead(given: Given, other: np.ndarray) -> np.ndarray:
    """Sound i2 or f4 [samples] in the rhythm and with the loudness of the clip's own, i2 [640 * frames]."""
    return _levelled(in_rhythm(other.astype(np.float32), given.clip.sound), given.clip)


def shift(given: Given) -> Forged:
    """The clip's own sound, early or late. What is heard is real sound: the output leaves out as much at its ends."""
    clip, rng = given.clip, given.rng
    frames = int(rng.integers(TRIM[0], clip.trim + 1)) * int(rng.choice([-1, 1]))
    sound = np.roll(clip.sound, frames * SAMPLES_PER_FRAME)
    way = "late" if frames > 0 else "early"
    return Forged(sound=sound, used_donor=False, note=f"sound {abs(frames)} frames {way}")


def same_words(given: Given) -> Forged:
    """The synthetic voice says the clip's words when the clip says them."""
    words = given.speaker.words(given.clip)
    said = given.speaker.say([word.text for word in words], int(given.rng.integers(1 << 30)))
    if len(words) == len(said.words):
        sound = _at_times(said, [(w.start_s, w.end_s) for w in words], len(given.clip.sound))
    else:
        sound = in_rhythm(said.samples, given.clip.sound)
    return Forged(
        sound=_levelled(in_room(sound, given.clip.sound, given.rng), given.clip), used_donor=False, note=_told(said)
    )


def other_words(given: Given) -> Forged:
    """The synthetic voice says another clip's words in the rhythm of this one."""
    words = given.speaker.words(given.other)
    said = given.speaker.say([word.text for word in words], int(given.rng.integers(1 << 30)))
    sound = in_rhythm(said.samples, given.clip.sound)
    return Forged(sound=_levelled(in_room(sound, given.clip.sound, given.rng), given.clip), note=_told(said))


def _at_times(said: Said, times: list[tuple[float, float]], num_samples: int) -> np.ndarray:
    """A synthetic voice f4 [num_samples] with its words at these times (start_s, end_s), silent between distant ones."""
    slow, fast = SPEEDS
    here, there = [-1.0], [-1.0]  # seconds of the clip, and of the voice
    heard = np.zeros(num_samples)
    for (start, end), word in zip(times, said.words, strict=True):
        length = word.end_s - word.start_s
        start = max(start, here[-1] + 0.01)
        end = min(max(end, start + 0.04), start + length / slow)
        here += [start, end]
        there += [word.start_s, word.start_s + min(length, fast * (end - start))]
        heard[max(round((start - JOIN_S) * SAMPLE_RATE), 0) : max(round((end + JOIN_S) * SAMPLE_RATE), 0)] = 1
    here.append(here[-1] + 10.0)
    there.append(there[-1] + 10.0)
    moments = np.interp(np.arange(num_samples) / SAMPLE_RATE, here, there) * SAMPLE_RATE
    fade = np.hanning(round(JOIN_S * SAMPLE_RATE))
    return np.asarray(stretched(said.samples, moments) * np.convolve(heard, fade / fade.sum(), "same"), np.float32)


def _levelled(sound: np.ndarray, clip: Clip) -> np.ndarray:
    """i2 [640 * frames] with the clip's loudness in the part that is kept."""
    part = clip.kept_samples
    whole = np.zeros(len(clip.sound), np.int16)
    whole[part] = at_level(sound[part], clip.sound[part])
    return whole


def _told(said: Said) -> str:
    return " ".join(word.text for word in said.words)
