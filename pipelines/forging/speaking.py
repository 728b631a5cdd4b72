"""The synthetic voice: words of a clip by Whisper, spoken by piper's packaged English voice (extra `demo`).

It is a neural text-to-speech voice, one man's, and knows English alone. Both models are loaded when they are first needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from concord.frames import AUDIO_PRESENT, IN_USE, VOICE_ACTIVE
from pipelines.demo import speech
from pipelines.forging.reading import Clip, NoSpeech
from store.layout import SAMPLE_RATE
from teachers.base import ClipMedia, load

if TYPE_CHECKING:
    from teachers.whisper.transcribe import Word

RECOGNISER = "whisper:tiny.en"


@dataclass(frozen=True)
class SaidWord:
    """A word of the synthetic voice."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Said:
    """Sound f4 [samples] at 16 kHz on the scale of 16 bits, and its words in order."""

    samples: np.ndarray
    words: tuple[SaidWord, ...]


class Speaker:
    """The recogniser and the voice."""

    def words(self, clip: Clip) -> list[Word]:
        """The words of a clip's window, times from its first frame. Raises NoSpeech if there are none."""
        flags = np.full(clip.num_frames, AUDIO_PRESENT | IN_USE, np.uint8)
        flags[clip.voice] |= VOICE_ACTIVE
        nothing = np.zeros((clip.num_frames, 0), np.float32)
        (found,) = self._recogniser.transcribe([ClipMedia("", clip.sound, nothing, nothing, nothing, flags)])
        words = [word for word in found if any(letter.isalnum() for letter in word.text)]
        if not words:
            raise NoSpeech("no English words are recognised in its sound")
        return words

    def say(self, texts: list[str], seed: int) -> Said:
        """The words, spoken as one sentence."""
        from scipy.signal import resample_poly

        plain = " ".join("".join(c for c in text if c.isalnum() or c in "'-") for text in texts)
        (found,) = self._voice.speak([" ".join(plain.split())], [1.0], seed)
        samples = resample_poly(found.samples, SAMPLE_RATE // 50, speech.SAMPLE_RATE // 50) * 32767
        words = []
        for number, text in enumerate(found.words):
            own = [phone for phone in found.phones if phone.word == number]
            if own:
                words.append(SaidWord(text, own[0].start_s, own[-1].end_s))
        return Said(samples.astype(np.float32), tuple(words))

    @cached_property
    def _recogniser(self) -> Any:
        return load(RECOGNISER)

    @cached_property
    def _voice(self) -> speech.Voice:
        return speech.Voice()
