"""Decodes many pieces of sound together with a Whisper model: words with times, as openai-whisper's own routine finds
them one by one.

Each piece moves on in windows of 30 s. In a round, every piece that is not finished has one window encoded; the texts
of all windows are decoded together at temperature 0 (`whisper.decode`), because reading the model's weights for each
next token takes as long for one window as for many. Each window's words are then aligned alone, so their times and
probabilities are the same bits beside any other pieces.

The features of a window are computed once: whisper's routine encodes for the text and again for the word times. Its
alignment by dynamic time warping is replaced (`warped`), because whisper compiles its own with numba, which takes three
seconds in every process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor
    from whisper.model import Whisper as Model

TOGETHER = 16  # pieces decoded at once: with more, the memory of their keys grows and the speed hardly
FRAMES = 3000  # of the spectrogram, 10 ms each: the 30 s that Whisper decodes at once
PER_SECOND = 100  # of these frames
PER_ROW = 2  # frames for each row of the encoder and each step of a time token
NO_SPEECH = 0.6  # probability, whisper's own; GRID's highest is .11, in white noise at 0 dB .54, in babble at 0 dB .59

Encode = Callable[["Tensor"], "Tensor"]  # spectrogram f4 [mels, frames of 10 ms] -> features f4 [rows, dim]


@dataclass(frozen=True)
class Heard:
    """A word in a piece of sound: where its window begins (frame of 10 ms), start and end (s), text, probability."""

    window: int
    start_s: float
    end_s: float
    text: str
    probability: float


@dataclass
class Piece:
    """Sound on its way through the rounds: spectrogram f4 [mels, frames of 10 ms], its language; the frame at which its
    next window begins, where its speech ended so far (s), and its words."""

    mel: Tensor
    language: str
    at: int = 0
    spoken_to_s: float = 0.0
    words: list[Heard] = field(default_factory=list)

    @property
    def window(self) -> Tensor:
        return self.mel[:, self.at : self.at + FRAMES]


def decode(model: Model, pieces: Sequence[Piece], encode: Encode) -> None:
    """Fill in the words of each piece; give at most TOGETHER of them."""
    while todo := [piece for piece in pieces if piece.at < piece.mel.shape[1]]:
        for language in dict.fromkeys(piece.language for piece in todo):
            _round(model, [piece for piece in todo if piece.language == language], language, encode)


def _round(model: Model, pieces: list[Piece], language: str, encode: Encode) -> None:
    """Decode the next window of each piece."""
    import torch
    import whisper
    from whisper.tokenizer import get_tokenizer

    half = model.device.type == "cuda"
    options = whisper.DecodingOptions(language=language, temperature=0.0, fp16=half)
    tokenizer = get_tokenizer(model.is_multilingual, num_languages=model.num_languages, language=language)
    features = torch.stack([encode(piece.window) for piece in pieces])
    results = whisper.decode(model, features.half() if half else features, options)
    for piece, rows, result in zip(pieces, features, results, strict=True):
        size = piece.window.shape[1]
        if result.no_speech_prob > NO_SPEECH:
            piece.at += size
        else:
            _take(model, tokenizer, piece, rows, result.tokens, size)


def _take(model: Model, tokenizer: Any, piece: Piece, features: Tensor, tokens: list[int], size: int) -> None:
    """Add the words of a decoded window of `size` frames to its piece, and move on."""
    from whisper.timing import add_word_timestamps

    begin_s = piece.at / PER_SECOND
    segments, step, is_whole = _segments(tokens, tokenizer.timestamp_begin, begin_s, size)
    for segment in segments:
        segment["seek"] = piece.at
    with _own_warping():
        add_word_timestamps(
            segments=segments,
            model=_Listener(model),  # type: ignore[arg-type]
            tokenizer=tokenizer,
            mel=features,
            num_frames=size,
            last_speech_timestamp=piece.spoken_to_s,
        )
    for segment in segments:
        text = tokenizer.decode([token for token in segment["tokens"] if token < tokenizer.eot])
        if segment["start"] != segment["end"] and text.strip():
            piece.words += [
                Heard(piece.at, float(word["start"]), float(word["end"]), word["word"], float(word["probability"]))
                for word in segment["words"]
            ]
    before = piece.at
    piece.spoken_to_s = _end_s(segments)
    piece.at += step
    if not is_whole and piece.spoken_to_s > begin_s:
        piece.at = round(piece.spoken_to_s * PER_SECOND)
    if piece.at <= before:  # time tokens that lead nowhere
        piece.at = before + size


def _end_s(segments: list[dict[str, Any]]) -> float:
    """Where the last word ends, or without words the last segment."""
    ends = [word["end"] for segment in segments for word in segment["words"]]
    return float(ends[-1] if ends else segments[-1]["end"])


def _segments(tokens: list[int], zero: int, begin_s: float, size: int) -> tuple[list[dict[str, Any]], int, bool]:
    """What lies between the time tokens of a window that begins at `begin_s`, as whisper's segments; the frames to move
    on; and whether the window ends with silence after one time token. `zero` is the time token of 0 s."""
    is_time = [token >= zero for token in tokens]
    is_whole = is_time[-2:] == [False, True]
    row_s = PER_ROW / PER_SECOND
    cuts = [k + 1 for k, (one, two) in enumerate(pairwise(is_time)) if one and two]
    if not cuts:
        times = [token - zero for token in tokens if token >= zero]
        length_s = times[-1] * row_s if times and times[-1] else size / PER_SECOND
        return [{"start": begin_s, "end": begin_s + length_s, "tokens": tokens}], size, is_whole
    cuts += [len(tokens)] if is_whole else []
    parts = [tokens[a:b] for a, b in pairwise([0, *cuts])]
    segments = [
        {"start": begin_s + (part[0] - zero) * row_s, "end": begin_s + (part[-1] - zero) * row_s, "tokens": part}
        for part in parts
    ]
    return segments, size if is_whole else (parts[-1][-1] - zero) * PER_ROW, is_whole


class _Listener:
    """A model for whisper's alignment that takes features in place of a spectrogram."""

    def __init__(self, model: Model) -> None:
        self.dims, self.device, self.decoder = model.dims, model.device, model.decoder
        self.alignment_heads = model.alignment_heads

    def __call__(self, features: Tensor, tokens: Tensor) -> Tensor:
        return self.decoder(tokens, features)


@contextmanager
def _own_warping() -> Iterator[None]:
    """Within the block, whisper's alignment uses `warped`."""
    from whisper import timing

    theirs = timing.dtw
    timing.dtw = lambda x: warped(x.double().cpu().numpy())
    try:
        yield
    finally:
        timing.dtw = theirs


def warped(cost: np.ndarray) -> np.ndarray:
    """The cheapest path through f8 [rows, columns] from the first to the last cell, by single steps right, down or both:
    i8 [2, steps], its rows and columns. Among equally cheap steps the one to the right is taken, as in whisper."""
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    came = np.full((rows + 1, columns + 1), 2, np.int8)  # 0 from both sides, 1 from above, 2 from the left
    came[1:, 0] = 1
    for diagonal in range(2, rows + columns + 1):  # the cells of a diagonal do not depend on each other
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        both, above, left = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        step = np.where((both < above) & (both < left), 0, np.where((above < both) & (above < left), 1, 2))
        came[i, j] = step
        total[i, j] = cost[i - 1, j - 1] + np.choose(step, (both, above, left))
    path, i, j = [], rows, columns
    while i or j:
        path.append((i - 1, j - 1))
        step = came[i, j]
        i, j = i - (step != 2), j - (step != 1)
    return np.array(path[::-1]).T
