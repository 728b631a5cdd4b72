"""Whisper: an encoder of speech from sound (`teacher`), its packaged weights (`ctranslate2`), and words with times
(`transcribe`, by `decode` from the features of `padding`)."""

from teachers.whisper.teacher import Whisper, load, load_exact

__all__ = ["Whisper", "load", "load_exact"]
