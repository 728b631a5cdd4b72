"""Which mix of a sound's channels carries the voice.

The mix is taken in which somebody is heard most; of equally good ones ffmpeg's own, then the centre, then the loudest
channel. Of a channel and its echo the earlier one is taken, because a mean of both sounds like a pipe. Left out: mixes
that change within a clip, and what lies beyond the first minutes.
"""

from __future__ import annotations

import math

import numpy as np

from pipelines.hearing.listen import MEAN, Heard, Speech, Voice, Weights, listen, speeches
from pipelines.media.files import CHANNELS, Media, choose_stream, open_media
from pipelines.media.mix import Mix
from store.layout import SAMPLE_RATE

PIECES = 3  # minutes that are listened to
LEAST = 5  # frames with voice, .2 s, that count as somebody speaking
MORE = 13  # frames with voice that the mean may miss
CLOSE = 3  # frames with voice by which equally good mixes differ
AS_GOOD = 0.95  # share of the best mix's frames with voice, from which another one is equally good
CARRIES = 0.5  # the same, from which a channel carries the voice
FAINT = 1e-3  # power of the voice in that of the loudest channel, below which another has only a trace of it
LOST = 0.1  # power of a mix in that of the channel with the voice, below which it has lost the voice
SHARE = 0.05  # of the frames with voice, in which that may happen
CLEANER_DB = 6.0  # by which the pauses of a channel are quieter than those of the mean
DELAY = (8, 8000)  # samples, .5 ms to .5 s, between a channel and its echo
ECHO = 0.7  # correlation of the two
MS = 1000 / SAMPLE_RATE
SILENT = 8  # steps of 16 bits, -72 dB
DIFFERENCE: Weights = (0.5, -0.5)


def choose_mix(path: Media, index: int, voice: Voice) -> Mix | None:
    """The mix in which the voice is heard, for the sound stream at `index` of a local file; None: ffmpeg's is as good."""
    found: dict[Weights, list[Speech]] = {}
    first = None
    with open_media(path) as container:
        stream = choose_stream(container, "audio", path, index)
        for _, piece in listen(container, [stream], PIECES):
            first = first or piece
            for weights, speech in speeches(piece, voice).items():
                found.setdefault(weights, []).append(speech)
    if first is None or not first.channels.shape[1]:
        return None
    joined = {
        weights: Speech(np.concatenate([s.voice for s in some]), np.concatenate([s.power for s in some]))
        for weights, some in found.items()
    }
    return decide(joined, first)


def decide(of: dict[Weights, Speech], piece: Heard) -> Mix | None:
    """The mix to take, by what is heard of each one; `piece` tells whether one channel is an echo of the other."""
    single = {weights: speech for weights, speech in of.items() if 1.0 in weights}
    best = max(speech.frames for speech in of.values())
    if best < LEAST:
        return _loudest(of[MEAN], single, piece)
    top = max(speech.loud for speech in single.values())
    carry = {
        weights: speech
        for weights, speech in single.items()
        if speech.frames >= CARRIES * best and speech.loud >= FAINT * top
    }
    difference = of.get(DIFFERENCE)
    if difference is not None and not _as_good(difference, best):
        if carry and _cleaner(difference, of[MEAN], carry):
            return Mix(
                DIFFERENCE, "the voice alone is in opposite phase in the two channels; their difference was taken"
            )
        difference = None
    if not carry and difference is not None:
        return Mix(DIFFERENCE, "the voice is heard best in the difference of the two channels, which was taken")
    if len(carry) == 1:
        (only,) = carry
        return Mix(only, f"the voice is in {_named(only, piece)} alone, which was taken")
    return (_without_echo(piece) or _of_carriers(of[MEAN], carry, difference, best, piece)) if carry else None


def _as_good(speech: Speech, best: int) -> bool:
    return speech.frames >= min(AS_GOOD * best, best - CLOSE)


def _cleaner(difference: Speech, mean: Speech, carry: dict[Weights, Speech]) -> bool:
    """Whether the difference of two channels has the voice without the other sound, which is all that the mean has."""
    noisy = max(speech.contrast_db for speech in carry.values())
    heard = difference.frames >= MORE and mean.frames < CARRIES * difference.frames
    return heard and mean.contrast_db < noisy < difference.contrast_db - CLEANER_DB


def _loudest(mean: Speech, single: dict[Weights, Speech], piece: Heard) -> Mix | None:
    """Nobody speaks: the loudest channel, if the mean has lost it."""
    loudest = max(single, key=lambda weights: single[weights].power.sum())
    if mean.power.sum() >= LOST * single[loudest].power.sum():
        return None
    return Mix(loudest, f"the mean of the channels loses the sound; {_named(loudest, piece)} was taken")


def _without_echo(piece: Heard) -> Mix | None:
    """Of two channels the earlier one, if the other repeats it."""
    delay = _delay(piece.channels) if len(piece.names) == 2 else 0
    if not delay:
        return None
    early, late = ((1.0, 0.0), (0.0, 1.0))[:: 1 if delay > 0 else -1]
    text = f"{_named(late, piece)} repeats {_named(early, piece)} {abs(delay) * MS:.1f} ms later"
    return Mix(early, f"{text}; {_named(early, piece)} was taken")


def _of_carriers(
    mean: Speech, carry: dict[Weights, Speech], difference: Speech | None, best: int, piece: Heard
) -> Mix | None:
    """Of several channels with a voice, the one to take if the mean is worse; `difference` is None if it is worse than
    the best mix, which has `best` frames with voice."""
    most = max(speech.frames for speech in carry.values())
    good = [weights for weights in carry if _as_good(carry[weights], most)]
    centre = [weights for weights in good if piece.names[weights.index(1.0)] == "FC"]
    chosen = max(centre or good, key=lambda weights: round(10 * math.log10(carry[weights].loud)))  # equal: the first
    name = _named(chosen, piece)
    spoken = np.any([speech.voice for speech in carry.values()], axis=0)
    power = np.max([speech.power for speech in carry.values()], axis=0)
    lost = float((mean.power < LOST * power)[spoken].mean())
    if difference is not None and (difference.power < LOST * power)[spoken].mean() > SHARE:
        difference = None  # they are in phase for a while
    cleaner = difference is not None and difference.contrast_db > carry[chosen].contrast_db + CLEANER_DB
    if lost > SHARE and difference is not None and (lost > 1 - SHARE or cleaner or not _as_good(carry[chosen], best)):
        return Mix(DIFFERENCE, "the two channels are in opposite phase; their difference was taken")
    if lost > SHARE:
        return Mix(chosen, f"the mean of the channels loses {100 * lost:.0f} % of the speech; {name} was taken")
    clean = max(good, key=lambda weights: carry[weights].contrast_db)
    if carry[clean].contrast_db > mean.contrast_db + CLEANER_DB:
        return Mix(clean, f"the voice is cleanest in {_named(clean, piece)}, which was taken")
    if mean.frames >= min(AS_GOOD * best, best - MORE):
        return None
    if difference is not None and (cleaner or not _as_good(carry[chosen], best)):
        return Mix(DIFFERENCE, "the voice is heard best in the difference of the two channels, which was taken")
    return Mix(chosen, f"the voice is heard best in {name}, which was taken")


def _delay(channels: np.ndarray) -> int:
    """Samples by which the second of two channels, f4 [n, 2], repeats the first; negative: the first repeats it; 0: none
    does."""
    size = 1 << (2 * len(channels)).bit_length()
    left, right = np.fft.rfft(channels, size, axis=0).T
    both = np.fft.irfft(np.conj(left) * right, size)
    power = float(np.sqrt(np.prod(np.square(channels, dtype=np.float64).sum(axis=0))))
    lags = np.arange(-DELAY[1], DELAY[1] + 1)
    found = np.abs(both[lags])
    lag = int(lags[found.argmax()])
    return lag if power > 0 and abs(lag) >= DELAY[0] and found.max() >= ECHO * power else 0


def _named(weights: Weights, piece: Heard) -> str:
    """A channel in words."""
    k = weights.index(1.0)
    words = {"FL": "the left channel", "FR": "the right channel", "FC": "the centre channel"}
    place = f" ({piece.names[k]})" if piece.names[k] in CHANNELS else ""
    return words.get(piece.names[k], f"channel {k + 1}{place}")


def is_silent(samples: np.ndarray) -> bool:
    """Whether sound i2 [n] holds nothing but the noise of rounding and codecs."""
    return int(np.abs(samples.astype(np.int32)).max(initial=0)) <= SILENT
