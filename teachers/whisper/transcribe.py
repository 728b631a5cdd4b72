"""Transcripts with word times by a Whisper model, decoded only where there is voice.

The text comes from sound padded to 30 s, as in the model's training (`teachers.whisper.padding`). Decoded from rows of
trimmed sound it loops (the same sentence two or three times in 10 of 15 GRID clips). Whisper invents text for silence,
so silence is never decoded: the frames with voice are gathered into stretches (with pauses of up to PAUSE inside and
MARGIN of real sound around). Stretches of many clips are decoded together (`teachers.whisper.decode`), each without the
preceding text; the rest of a clip has no words. A stretch that Whisper classifies as silence has none either.

A decoder that loops repeats its words, and the alignment finds no sound for them. So CRAMMED words in a row without
duration were not spoken, nor was anything after them in that window. Such a stretch is cut at its longest pause and
decoded again; so is one in which a run of voice got no words. A stretch without a pause keeps the words before the
loop. A sentence that is really repeated has its own sound each time and is kept. Not handled: who speaks, and words
invented for music that both voice activity and Whisper classify as speech.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from concord.frames import FPS, SAMPLES_PER_FRAME, VOICE_ACTIVE
from teachers.base import ClipMedia
from teachers.face.align import runs
from teachers.whisper.decode import TOGETHER, Encode, Heard, Piece, decode

if TYPE_CHECKING:
    from torch import Tensor
    from whisper.model import Whisper as Model

WINDOW = 750  # frames, the 30 s that Whisper decodes at once
PAUSE = (
    50  # frames without voice between two stretches; context helps: 21 sentences in 65 s, error rate .22, with 25 .36
)
MARGIN = 12  # frames of sound around a stretch; 5 to 25, or the whole clip, give equal error rates on GRID
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


def transcribe(model: Model, clips: Sequence[ClipMedia], encode: Encode) -> list[list[Word]]:
    """Words of each clip in order, by an openai-whisper model; no words where a clip's flags show no voice.

    `encode` gives the features of a window. The language of a clip is found once, from its first 30 s of voice.
    """
    found: list[dict[int, list[Word]]] = [{} for _ in clips]  # by the frame at which a stretch begins
    todo = [_Stretch(clip, k, runs, "") for k, clip in enumerate(clips) for runs in stretches(_voiced(clip))]
    languages = {k: _language(model, clips[k]) for k in dict.fromkeys(stretch.index for stretch in todo)}
    todo = [replace(stretch, language=languages[stretch.index]) for stretch in todo]
    while todo:
        now, todo = todo[:TOGETHER], todo[TOGETHER:]
        pieces = [Piece(_mel(model, stretch.sound()), stretch.language) for stretch in now]
        decode(model, pieces, encode)
        for stretch, piece in zip(now, pieces, strict=True):
            words, looped = _spoken(stretch, piece.words)
            if len(stretch.runs) > 1 and (looped or _missed(stretch.runs, words)):
                todo += [replace(stretch, runs=part) for part in _cut(stretch.runs)]
            else:
                found[stretch.index][stretch.runs[0][0]] = words
    return [[word for _, words in sorted(by.items()) for word in words] for by in found]


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


@dataclass(frozen=True)
class _Stretch:
    """Runs of voice of a clip (the `index`-th) that are decoded together, and their language."""

    clip: ClipMedia
    index: int
    runs: list[Run]
    language: str

    @property
    def first(self) -> int:
        """The frame from which sound is taken; the voice of neighbours is excluded."""
        begin = self.runs[0][0]
        before = np.flatnonzero(_voiced(self.clip)[:begin])
        return max(begin - MARGIN, int(before[-1]) + 1 if len(before) else 0)

    def sound(self) -> np.ndarray:
        """f4 [samples] within [-1, 1)."""
        end = self.runs[-1][1]
        after = np.flatnonzero(_voiced(self.clip)[end:])
        last = min(end + MARGIN, end + int(after[0]) if len(after) else self.clip.num_frames)
        return _wave(self.clip.audio[self.first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME])


def _spoken(stretch: _Stretch, heard: Sequence[Heard]) -> tuple[list[Word], bool]:
    """(words, whether the decoder looped) of one stretch."""
    windows: dict[int, list[Word]] = {}
    for one in heard:
        start_s, end_s = (time_s + stretch.first / FPS for time_s in (one.start_s, one.end_s))
        word = Word(start_s, min(end_s, stretch.clip.num_frames / FPS), one.text.strip(), one.probability)
        windows.setdefault(one.window, []).append(word)
    spoken = [word for words in windows.values() for word in timed(words)]
    cut = [voiced_part(word, stretch.runs) for word in spoken if any(letter.isalnum() for letter in word.text)]
    return [word for word in cut if word is not None], len(spoken) < sum(map(len, windows.values()))


def _voiced(clip: ClipMedia) -> np.ndarray:
    """bool [frames]."""
    return (clip.flags & VOICE_ACTIVE) > 0


def _language(model: Model, clip: ClipMedia) -> str:
    """The language of a clip with voice; "en" for a model that supports no other."""
    import torch
    from whisper.audio import N_SAMPLES, log_mel_spectrogram, pad_or_trim

    if not model.is_multilingual:
        return "en"
    sound = clip.audio.reshape(clip.num_frames, SAMPLES_PER_FRAME)[_voiced(clip)][:WINDOW].reshape(-1)
    mel = log_mel_spectrogram(pad_or_trim(_wave(sound), N_SAMPLES), model.dims.n_mels)
    with torch.inference_mode():
        _, probabilities = model.detect_language(mel.to(model.device))
    return max(probabilities, key=probabilities.get)


def _mel(model: Model, wave: np.ndarray) -> Tensor:
    """Spectrogram f4 [mels, frames of 10 ms] of sound f4 [samples], scaled as if 30 s of silence followed."""
    import torch
    from whisper.audio import HOP_LENGTH, N_SAMPLES, log_mel_spectrogram

    mel = log_mel_spectrogram(torch.from_numpy(wave), model.dims.n_mels, padding=N_SAMPLES)
    return mel[:, : len(wave) // HOP_LENGTH].to(model.device)


def _wave(sound: np.ndarray) -> np.ndarray:
    """f4 within [-1, 1) of sound i2."""
    return sound.astype(np.float32) / 32768
