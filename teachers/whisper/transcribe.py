"""Transcripts with word times by a Whisper model, decoded only where there is voice.

The text comes from the model's own encoder on sound padded to 30 s, as in its training. Decoded from rows of trimmed
sound it loops (the same sentence two or three times in 10 of 15 GRID clips). Whisper invents text for silence, so
silence is never decoded: the frames with voice are gathered into stretches (with pauses of up to PAUSE inside and
MARGIN of real sound around). Each stretch is decoded separately with whisper's own routine at temperature 0, without
the preceding text; the rest of the clip has no words. A stretch that Whisper classifies as silence has none either.

A decoder that loops repeats its words, and the alignment finds no sound for them. So CRAMMED words in a row without
duration were not spoken, nor was anything after them in that window. Such a stretch is cut at its longest pause and
decoded again; so is one in which a run of voice got no words. A stretch without a pause keeps the words before the
loop. A sentence that is really repeated has its own sound each time and is kept. Not handled: who speaks, and words
invented for music that both voice activity and Whisper classify as speech.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from concord.frames import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME, VOICE_ACTIVE
from teachers.base import ClipMedia
from teachers.face.align import runs

if TYPE_CHECKING:
    from torch import Tensor, nn
    from whisper.model import Whisper as Model

WINDOW = 750  # frames, the 30 s that Whisper decodes at once
PAUSE = (
    50  # frames without voice between two stretches; context helps: 21 sentences in 65 s, error rate .22, with 25 .36
)
MARGIN = 12  # frames of sound around a stretch; 5 to 25, or the whole clip, give equal error rates on GRID
NO_SPEECH = 0.6  # probability, whisper's own; GRID's highest is .11, in white noise at 0 dB .54, in babble at 0 dB .59
CRAMMED = 3  # number of words in a row that
INSTANT_S = 0.04  # each last no longer than this (the alignment's step is 0.02 s)
WORTH = 10  # frames, 0.4 s: a run of voice this long without a word counts as missed
SLACK = 2  # frames by which a word may outlast the voice: final consonants are faint

Run = tuple[int, int]  # frames [start, stop) with voice


@dataclass(frozen=True)
class Word:
    """One word of a transcript; seconds on the clip's clock."""

    start_s: float
    end_s: float
    text: str
    probability: float


def transcribe(model: Model, clip: ClipMedia) -> list[Word]:
    """Words of a clip in order, by an openai-whisper model; no words where the clip's flags show no voice.

    The language is found once, from the first 30 s of voice.
    """
    voiced = (clip.flags & VOICE_ACTIVE) > 0
    todo = stretches(voiced)[::-1]
    words: list[Word] = []
    if todo:
        language = _language(model, clip, voiced)
        with _encoding_once(model.encoder):
            while todo:
                stretch = todo.pop()
                found, looped = _decode(model, clip, voiced, stretch, language)
                if len(stretch) > 1 and (looped or _missed(stretch, found)):
                    todo += _cut(stretch)[::-1]
                else:
                    words += found
    return words


def stretches(voiced: np.ndarray) -> list[list[Run]]:
    """Runs of bool [frames] in groups that are decoded together: no pause of PAUSE or more inside, at most WINDOW long.

    A longer group is cut at its longest pauses; a single run may be longer, and whisper then moves through it.
    """
    todo, groups = [runs(voiced)] if voiced.any() else [], []
    while todo:
        group = todo.pop()
        longest = max((after[0] - before[1] for before, after in pairwise(group)), default=0)
        if longest >= PAUSE or (longest and group[-1][1] - group[0][0] > WINDOW):
            todo += _cut(group)[::-1]
        else:
            groups.append(group)
    return groups


def timed(words: list[Word]) -> list[Word]:
    """The words of one decoded window before the first CRAMMED words in a row without duration; all words if there are
    none."""
    instant = np.array([word.end_s - word.start_s <= INSTANT_S for word in words], bool)
    for start, stop in runs(instant):
        if stop - start >= CRAMMED:
            return words[:start]
    return words


def voiced_part(word: Word, voiced_runs: list[Run]) -> Word | None:
    """The word cut to the run of voice that it shares most frames with; None if it is over a frame away from all.

    Whisper's first word tends to begin with the sound and its last one to end with it, seconds later.
    """
    start, stop = int(word.start_s * FPS) - 1, int(np.ceil(word.end_s * FPS)) + 1
    shared = [min(stop, b) - max(start, a) for a, b in voiced_runs]
    best = int(np.argmax(shared)) if shared else -1
    if best < 0 or shared[best] <= 0:
        return None
    a, b = voiced_runs[best]
    begin = min(max(word.start_s, a / FPS), b / FPS)
    return Word(begin, max(begin, min(word.end_s, (b + SLACK) / FPS)), word.text, word.probability)


def _cut(group: list[Run]) -> list[list[Run]]:
    """Split a group of at least two runs at its longest pause."""
    pauses = [after[0] - before[1] for before, after in pairwise(group)]
    k = int(np.argmax(pauses)) + 1
    return [group[:k], group[k:]]


def _missed(group: list[Run], words: list[Word]) -> bool:
    """Whether a run of voice that could hold a word has none."""
    return any(
        b - a >= WORTH and not any(word.start_s < b / FPS and word.end_s > a / FPS for word in words) for a, b in group
    )


def _decode(
    model: Model, clip: ClipMedia, voiced: np.ndarray, stretch: list[Run], language: str
) -> tuple[list[Word], bool]:
    """(words, whether the decoder looped) of one stretch."""
    import whisper

    begin, end = stretch[0][0], stretch[-1][1]
    before, after = np.flatnonzero(voiced[:begin]), np.flatnonzero(voiced[end:])  # the sound of neighbours is excluded
    first = max(begin - MARGIN, before[-1] + 1 if len(before) else 0)
    last = min(end + MARGIN, end + after[0] if len(after) else clip.num_frames)
    result = whisper.transcribe(
        model,
        _wave(clip.audio[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME]),
        temperature=0.0,
        condition_on_previous_text=False,
        word_timestamps=True,
        language=language,
        no_speech_threshold=NO_SPEECH,
        logprob_threshold=None,  # otherwise whisper keeps text with a high probability, such as "you" for silence
        fp16=model.device.type == "cuda",
        verbose=None,
    )
    windows: dict[int, list[Word]] = {}  # where whisper's window begins: its words
    for segment in result["segments"]:
        for word in segment["words"]:
            start_s, end_s = (float(word[key]) + first / FPS for key in ("start", "end"))
            found = Word(start_s, min(end_s, clip.num_frames / FPS), word["word"].strip(), float(word["probability"]))
            windows.setdefault(segment["seek"], []).append(found)
    spoken = [word for words in windows.values() for word in timed(words)]
    looped = len(spoken) < sum(map(len, windows.values()))
    cut = [voiced_part(word, stretch) for word in spoken if any(letter.isalnum() for letter in word.text)]
    return [word for word in cut if word is not None], looped


def _language(model: Model, clip: ClipMedia, voiced: np.ndarray) -> str:
    """The language of a clip with voice; "en" for a model that supports no other."""
    import torch
    from whisper.audio import log_mel_spectrogram, pad_or_trim

    if not model.is_multilingual:
        return "en"
    sound = clip.audio.reshape(clip.num_frames, SAMPLES_PER_FRAME)[voiced][:WINDOW].reshape(-1)
    mel = log_mel_spectrogram(pad_or_trim(_wave(sound), 30 * SAMPLE_RATE), model.dims.n_mels)
    with torch.inference_mode():
        _, probabilities = model.detect_language(mel.to(model.device))
    return max(probabilities, key=probabilities.get)


def _wave(sound: np.ndarray) -> np.ndarray:
    """f4 within [-1, 1) of sound i2."""
    return sound.astype(np.float32) / 32768


@contextmanager
def _encoding_once(encoder: nn.Module) -> Iterator[None]:
    """Within the block an input equal to the last one gets the last result: whisper encodes each 30 s of sound once for
    the text and once more for the word times, and encoding takes most of the time."""
    import torch

    encode = encoder.forward
    last: list[Tensor] = []

    def forward(mel: Tensor) -> Tensor:
        if not (last and last[0].shape == mel.shape and torch.equal(last[0], mel)):
            last[:] = [mel, encode(mel)]
        return last[1]

    encoder.forward = forward
    try:
        yield
    finally:
        del encoder.forward  # the class's own method is visible again
