"""Phoneme times -> mouth shapes, and a mouth that says other words in the rhythm of a voice.

Every phoneme has a target shape and a weight for each part of it: lips must meet for /p b m/, but the jaw is free in
/k/. Neighbouring phonemes blend by dominance functions, exponentials that decay before and after a phoneme (Cohen and
Massaro 1993, "Modeling coarticulation in synthetic visual speech").

`in_step` makes the mouth of a forgery that says other words with the same rhythm: vowels of the other words fall on
the vowels of the voice and pauses on its pauses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from concord.frames import FPS
from pipelines.demo.lip_curves import SHAPE
from pipelines.demo.speech import Phone

VOWELS = frozenset("ɪʊəuᵻɔɛaʌɑeiæɐɜɚoɒ")
LOOKAHEAD = 6  # syllables of the other words that may replace one of the voice
Syllable = tuple[list[Phone], Phone]  # consonants and the following vowel

# Target (jaw, spread, round, upper, lower, press, tuck, tongue) and the dominance of each, 0 = free.
# fmt: off
_FREE = (0.4, 0.3, 0.3, 0.3, 0.3, 1.0, 1.0, 0.5)
_VOWEL = (1.0, 0.9, 0.9, 0.6, 0.6, 0.8, 0.8, 0.4)
_ROUND = (0.9, 0.6, 1.6, 0.6, 0.6, 0.8, 0.8, 0.4)
_LIPS = (2.2, 0.3, 0.3, 3.0, 3.0, 6.0, 2.0, 0.4)
_TEETH = (1.0, 0.4, 0.4, 1.5, 1.5, 2.0, 5.0, 0.4)
_TARGETS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "":  ((0.03, 0.05, 0.0, 0.0, 0.0, 0.05, 0.0, 0.0), (1.0, 0.8, 0.8, 0.8, 0.8, 0.8, 1.0, 0.6)),
    "m": ((0.02, 0.0, 0.05, 0.0, 0.0, 0.9, 0.0, 0.0), _LIPS),
    "f": ((0.12, 0.1, 0.0, 0.3, 0.0, 0.0, 1.0, 0.0), _TEETH),
    "θ": ((0.22, 0.1, 0.0, 0.2, 0.3, 0.0, 0.0, 1.0), (0.9, 0.3, 0.3, 0.9, 0.9, 1.5, 1.5, 2.0)),
    "t": ((0.14, 0.15, 0.0, 0.2, 0.35, 0.0, 0.0, 0.35), _FREE),
    "s": ((0.07, 0.30, 0.0, 0.3, 0.55, 0.0, 0.0, 0.1), (1.6, 0.5, 0.5, 0.8, 0.8, 1.2, 1.2, 0.5)),
    "l": ((0.32, 0.10, 0.0, 0.2, 0.25, 0.0, 0.0, 0.8), (0.6, 0.3, 0.3, 0.4, 0.4, 1.0, 1.0, 1.5)),
    "k": ((0.25, 0.10, 0.0, 0.1, 0.2, 0.0, 0.0, 0.0), _FREE),
    "h": ((0.35, 0.05, 0.0, 0.1, 0.15, 0.0, 0.0, 0.0), (0.15, 0.1, 0.1, 0.1, 0.1, 1.0, 1.0, 0.2)),
    "ʃ": ((0.12, 0.0, 0.65, 0.5, 0.5, 0.0, 0.0, 0.0), (1.4, 0.6, 1.4, 1.2, 1.2, 1.2, 1.2, 0.4)),
    "ɹ": ((0.20, 0.0, 0.55, 0.2, 0.25, 0.0, 0.0, 0.1), (0.7, 0.5, 1.0, 0.6, 0.6, 1.0, 1.0, 0.3)),
    "w": ((0.06, 0.0, 1.0, 0.0, 0.05, 0.1, 0.0, 0.0), (1.4, 0.8, 2.4, 0.9, 0.9, 1.0, 1.0, 0.3)),
    "j": ((0.14, 0.6, 0.0, 0.2, 0.3, 0.0, 0.0, 0.2), (0.8, 0.8, 0.6, 0.5, 0.5, 1.0, 1.0, 0.3)),
    "i": ((0.16, 0.95, 0.0, 0.3, 0.45, 0.0, 0.0, 0.15), _VOWEL),
    "ɪ": ((0.30, 0.50, 0.0, 0.2, 0.3, 0.0, 0.0, 0.1), _VOWEL),
    "e": ((0.42, 0.70, 0.0, 0.25, 0.35, 0.0, 0.0, 0.1), _VOWEL),
    "ɛ": ((0.55, 0.40, 0.0, 0.2, 0.3, 0.0, 0.0, 0.05), _VOWEL),
    "æ": ((0.75, 0.45, 0.0, 0.3, 0.3, 0.0, 0.0, 0.0), _VOWEL),
    "a": ((0.85, 0.20, 0.0, 0.2, 0.25, 0.0, 0.0, 0.0), _VOWEL),
    "ɑ": ((0.95, 0.0, 0.05, 0.15, 0.2, 0.0, 0.0, 0.0), _VOWEL),
    "ʌ": ((0.55, 0.05, 0.0, 0.1, 0.2, 0.0, 0.0, 0.0), _VOWEL),
    "ə": ((0.32, 0.05, 0.05, 0.1, 0.15, 0.0, 0.0, 0.05), (0.6, 0.4, 0.4, 0.3, 0.3, 0.8, 0.8, 0.3)),
    "ɜ": ((0.35, 0.0, 0.45, 0.2, 0.3, 0.0, 0.0, 0.1), _VOWEL),
    "ɔ": ((0.70, 0.0, 0.50, 0.15, 0.2, 0.0, 0.0, 0.0), _ROUND),
    "o": ((0.42, 0.0, 0.80, 0.1, 0.15, 0.0, 0.0, 0.0), _ROUND),
    "ʊ": ((0.24, 0.0, 0.70, 0.1, 0.2, 0.0, 0.0, 0.0), _ROUND),
    "u": ((0.12, 0.0, 1.0, 0.05, 0.1, 0.0, 0.0, 0.0), _ROUND),
}
_SAME = {"p": "m", "b": "m", "v": "f", "ð": "θ", "d": "t", "n": "t", "ɾ": "t", "z": "s", "ɡ": "k", "ŋ": "k", "ʔ": "k",
         "x": "k", "ɫ": "l", "ʒ": "ʃ", "r": "ɹ", "ɚ": "ɜ", "ɐ": "ʌ", "ᵻ": "ɪ", "ɒ": "ɔ"}
# fmt: on


@dataclass(frozen=True)
class Manner:
    """A speaker's way of moving, drawn for every clip.

    amplitude scales the shapes, sharpness the decay of the dominance functions (low = more coarticulation); lead_s is
    the lead of the mouth over the sound.
    """

    amplitude: float = 1.0
    sharpness: float = 1.0
    lead_s: float = 0.0


def mouth_shapes(phones: Sequence[Phone], start_s: float, num_frames: int, manner: Manner) -> np.ndarray:
    """Mouth shapes [num_frames, 8] (columns as lip_curves.SHAPE) of speech from start_s, at the middle of each
    frame."""
    targets, weights, centres, halves = [], [], [], []
    for phone in phones:
        target, dominance = _TARGETS[_class(phone)]
        shape = np.array(target)
        if phone.symbol in VOWELS:
            shape[[0, 1, 3, 4]] *= 1.12 if phone.stressed else 0.85
        targets.append(shape)
        weights.append(dominance)
        centres.append((phone.start_s + phone.end_s) / 2)
        halves.append((phone.end_s - phone.start_s) / 2)
    times = start_s + (np.arange(num_frames) + 0.5) / FPS + manner.lead_s
    # A phoneme's dominance decays from its centre; the first third of its half duration is a plateau.
    away = np.maximum(np.abs(times[:, None] - np.array(centres)) - np.array(halves) / 3, 0)
    hold = np.exp(-16.0 * manner.sharpness * away)[..., None] * np.array(weights)
    shapes = (hold * np.array(targets)).sum(axis=1) / hold.sum(axis=1)
    # Jaw and lips are scaled, contacts are not: a mumbled /m/ is still closed.
    scale = np.array([manner.amplitude] * 5 + [1.0] * (len(SHAPE) - 5))
    return np.clip(shapes * scale, [0, -0.5, 0, 0, 0, 0, 0, 0], [1.25] * 5 + [1.0] * (len(SHAPE) - 5))


def in_step(voice: Sequence[Phone], other: Sequence[Phone]) -> list[Phone]:
    """The phonemes of `other` in the rhythm of `voice`: silences stay, vowels are aligned with vowels, consonants fill
    the rest.

    Of the next syllables of `other` the best fitting one is used (`_best`) and the ones before it are skipped.
    Otherwise long open vowels would fall into short gaps and the mouth would move less than a real one, which would
    reveal the forgery from the picture alone. Vowels keep the stress of the voice. `other` is repeated if it is too
    short.
    """
    queue = _clusters([phone for phone in other if phone.symbol])
    taken = 0
    out: list[Phone] = []
    run: list[Phone] = []
    for phone in [*voice, Phone("", float("nan"), float("nan"))]:
        if phone.symbol:
            run.append(phone)
            continue
        nuclei = [k for k, p in enumerate(run) if p.symbol in VOWELS]
        begin = run[0].start_s if run else 0.0
        for nucleus, before in zip(nuclei, [-1, *nuclei], strict=False):
            onset, vowel = queue[taken := _best(queue, taken, run[before + 1 : nucleus], run[nucleus])]
            taken += 1
            start, end = run[nucleus].start_s, run[nucleus].end_s
            if onset and start - begin < 0.03 * len(
                onset
            ):  # the voice has no consonant there: take time from the vowels
                start += min(0.04, (end - start) / 3)
            out += _spread(onset, begin, start)
            out.append(Phone(vowel.symbol, start if onset else begin, end, run[nucleus].stressed, vowel.word))
            begin = end
        if run and run[-1].end_s > begin:
            onset, _ = queue[taken % len(queue)]
            if onset:
                out += _spread(onset, begin, run[-1].end_s)
            elif out:
                last = out[-1]
                out[-1] = Phone(last.symbol, last.start_s, run[-1].end_s, last.stressed, last.word)
        run = []
        if phone.start_s == phone.start_s:  # not the sentinel
            out.append(phone)
    return out


def _best(queue: list[Syllable], taken: int, onset: Sequence[Phone], vowel: Phone) -> int:
    """Index, among the next few in the queue, of the syllable that best replaces consonants and vowel of the voice."""

    def misfit(ahead: int) -> float:
        other_onset, other = queue[(taken + ahead) % len(queue)]
        length = np.log((other.end_s - other.start_s) / (vowel.end_s - vowel.start_s))
        rhythm = 0.7 * abs(len(other_onset) - len(onset)) + 0.7 * abs(length) + (other.stressed != vowel.stressed)
        same = _class(other) == _class(vowel) and [*map(_class, other_onset)] == [*map(_class, onset)]
        return float(rhythm + 2.0 * same + 0.15 * ahead)

    return (taken + min(range(min(LOOKAHEAD, len(queue))), key=misfit)) % len(queue)


def _clusters(phones: Sequence[Phone]) -> list[Syllable]:
    """The consonants before each vowel, with the vowel."""
    clusters: list[Syllable] = []
    onset: list[Phone] = []
    for phone in phones:
        if phone.symbol in VOWELS:
            clusters.append((onset, phone))
            onset = []
        else:
            onset.append(phone)
    if not clusters:
        raise ValueError("speech without a vowel has no rhythm to follow")
    return clusters


def _spread(phones: Sequence[Phone], begin: float, end: float) -> list[Phone]:
    """The same phonemes placed end to end from begin to end, in proportion to their own durations."""
    lengths = np.array([phone.end_s - phone.start_s for phone in phones])
    edges = begin + np.concatenate([[0.0], np.cumsum(lengths)]) / max(lengths.sum(), 1e-9) * (end - begin)
    return [
        Phone(phone.symbol, float(edges[k]), float(edges[k + 1]), phone.stressed, phone.word)
        for k, phone in enumerate(phones)
    ]


def _class(phone: Phone) -> str:
    """Key of _TARGETS for a phoneme: those that look alike share one, unknown ones are neutral."""
    symbol = _SAME.get(phone.symbol, phone.symbol)
    return symbol if symbol in _TARGETS else "ə"
