"""Sound in another rhythm: which moment of one sound belongs to which of another, and a time stretch that keeps the pitch.

Two sounds are laid side by side by their envelopes (dynamic time warping, the stretch between a half and two); the
stretch overlaps and adds pieces of the sound where they fit best (WSOLA, Verhelst and Roelands 1993).
"""

from __future__ import annotations

import numpy as np

from store.layout import SAMPLE_RATE

STEP = SAMPLE_RATE // 50  # samples of an envelope's step, 20 ms
FLOOR_DB = -55.0  # below the loudest step: softer ones count as silent
PIECE = SAMPLE_RATE // 25  # samples of a piece, 40 ms, half of which overlap
SEARCH = SAMPLE_RATE // 80  # samples, 12.5 ms, by which a piece may be moved to fit
BANDS = 257  # of the spectra that describe a room
QUIET = 0.15  # share of a sound's spectra that are taken for its background
EQUAL_DB = 12.0  # most that a voice's spectrum is changed to resemble another's recording
KNEE, PEAK = 0.6, 0.97  # of full scale
ROUNDS = 4  # bending peaks takes loudness, which is then given back


def envelope(sound: np.ndarray) -> np.ndarray:
    """f8 [steps of 20 ms]: level in units of its own range, 0 silent to 1 loudest, smoothed over 60 ms."""
    from scipy.ndimage import gaussian_filter1d

    power = np.square(sound[: len(sound) // STEP * STEP].astype(np.float64)).reshape(-1, STEP).mean(1)
    level = 10 * np.log10(np.maximum(power, 1.0))
    level = np.clip((level - level.max() - FLOOR_DB) / -FLOOR_DB, 0, 1)
    return np.asarray(gaussian_filter1d(level, 1.0, mode="nearest"))


def aligned(wanted: np.ndarray, other: np.ndarray) -> np.ndarray:
    """f8 [steps of wanted]: for each step of the envelope `wanted` the step of `other` that belongs to it; `other` may
    begin and end anywhere, and must be at least half as long."""
    a, b = (np.stack([e, 2 * np.gradient(e)], axis=1) for e in (wanted, other))
    cost = np.abs(a[:, None] - b[None]).sum(2)
    n, m = cost.shape
    total = np.full((n, m), np.inf)
    came = np.zeros((n, m), np.int8)
    total[0] = cost[0]
    for i in range(1, n):
        before = np.full((3, m), np.inf)
        before[0, 1:] = total[i - 1, :-1]  # both go one step on
        before[1, 2:] = total[i - 1, :-2] + 0.5 * cost[i, 1:-1]  # the other goes two
        if i > 1:
            before[2, 1:] = total[i - 2, :-1] + cost[i - 1, 1:]  # it goes one in two steps
        came[i] = before.argmin(0)
        total[i] = before.min(0) + cost[i]
    j = int(total[n - 1].argmin())
    if not np.isfinite(total[n - 1, j]):
        return np.linspace(0, m - 1, n)
    found, i = np.zeros(n), n - 1
    while i > 0:
        found[i] = j
        if came[i, j] == 2:
            found[i - 1] = j - 0.5
            i, j = i - 2, j - 1
        else:
            i, j = i - 1, j - 1 - int(came[i, j])
    found[0] = j
    return found


def stretched(sound: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """f4 [len(moments)]: the sound f4 as it is at those of its samples, in its own pitch."""
    hop, window = PIECE // 2, np.hanning(PIECE + 1)[:PIECE]
    padded = np.pad(sound.astype(np.float64), (PIECE + SEARCH, 2 * PIECE + SEARCH))
    num = len(moments) // hop + 2
    found = np.zeros((num + 1) * hop + PIECE)
    at = np.interp(np.arange(num) * hop - hop, np.arange(len(moments)), moments)
    at[0] = moments[0] - hop
    place = int(at[0])
    for k, wanted in enumerate(np.clip(np.rint(at), -PIECE // 2, len(sound)).astype(int)):
        low = wanted - hop + PIECE  # of the padded sound, SEARCH before the piece
        if k:
            following = padded[place + hop : place + hop + PIECE]
            around = np.lib.stride_tricks.sliding_window_view(padded[low : low + PIECE + 2 * SEARCH], PIECE)
            fits = around @ following / np.sqrt(np.square(around).sum(1) + 1.0)
            place = low + int(fits.argmax())
        else:
            place = low + SEARCH
        place = min(max(place, 0), len(padded) - 2 * PIECE)
        found[k * hop : k * hop + PIECE] += window * padded[place : place + PIECE]
    return found[hop + hop : hop + hop + len(moments)].astype(np.float32)


def in_rhythm(sound: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """f4 [len(wanted)]: a sound in the rhythm of the sound `wanted`; one that is too short is repeated."""
    while len(sound) < 0.6 * len(wanted) + 2 * STEP:
        sound = np.concatenate([sound, sound])
    steps = aligned(envelope(wanted), envelope(sound))
    moments = np.interp(np.arange(len(wanted)) / STEP - 0.5, np.arange(len(steps)), (steps + 0.5) * STEP)
    return stretched(sound, moments)


def in_room(voice: np.ndarray, room: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """f4 [samples]: a synthetic voice with the tone of another recording and, behind it, that recording's background."""
    ours, theirs = _spectra(voice), _spectra(room)
    loud = [np.sort(s, axis=0)[int(0.6 * len(s)) :].mean(0) for s in (ours, theirs)]
    ratio = np.sqrt((_smooth(loud[1]) + 1.0) / (_smooth(loud[0]) + 1.0))
    bound = 10 ** (EQUAL_DB / 20)
    ratio = np.clip(ratio / np.exp(np.log(ratio).mean()), 1 / bound, bound)
    quiet = theirs[np.argsort(theirs.sum(1), kind="stable")[: max(int(QUIET * len(theirs)), 1)]].mean(0)
    shaped = _filtered(voice.astype(np.float64), ratio)
    shaped *= _loud(room) / max(_loud(shaped), 1.0)
    noise = _filtered(rng.normal(size=len(voice)), np.sqrt(quiet / np.square(np.hanning(2 * BANDS - 2)).sum()))
    return (shaped + noise).astype(np.float32)


def at_level(sound: np.ndarray, like: np.ndarray) -> np.ndarray:
    """i2 [samples]: a sound with the loudness of another; peaks above KNEE are bent to stay below PEAK."""
    found = np.asarray(sound, np.float64)
    knee, room = KNEE * 32767, (PEAK - KNEE) * 32767
    for _ in range(ROUNDS):
        found = found * (_loud(like) / max(_loud(found), 1.0))
        over = np.maximum(np.abs(found) - knee, 0)
        found = np.sign(found) * (np.minimum(np.abs(found), knee) + room * np.tanh(over / room))
    return np.asarray(np.rint(found), np.int16)


def _loud(sound: np.ndarray) -> float:
    return float(np.sqrt(np.square(np.asarray(sound, np.float64)).mean()))


def _spectra(sound: np.ndarray) -> np.ndarray:
    """Power f8 [pieces of 32 ms, BANDS]."""
    size = 2 * BANDS - 2
    padded = np.pad(np.asarray(sound, np.float64), (0, max(size - len(sound), 0)))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 2]
    return np.asarray(np.square(np.abs(np.fft.rfft(pieces * np.hanning(size)))))


def _smooth(power: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(power, 6.0, mode="nearest"))


def _filtered(sound: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """A sound through a filter without delay of gains [BANDS]."""
    spectrum = np.fft.rfft(sound, 2 * len(sound))
    at = np.linspace(0, BANDS - 1, len(spectrum))
    return np.asarray(np.fft.irfft(spectrum * np.interp(at, np.arange(BANDS), gains))[: len(sound)])
