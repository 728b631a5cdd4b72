"""Effects of rooms, telephones and codecs on sound: reverberation, the telephone band with G.711, mp3 and AAC.

Every function takes and returns i2 [samples] at 16 kHz, changes nothing in place, and shifts nothing in time: filters
are symmetric, a room's direct path is at sample 0, and a codec's delay is measured once and cut off. Lips and sound
stay in sync. mp3 and AAC are the real codecs of PyAV's FFmpeg, in memory.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np

from store.layout import SAMPLE_RATE

TAPS = 255  # of the telephone's band-pass filter: its edges are 200 Hz wide
ENCODERS = {"mp3": "libmp3lame", "aac": "aac"}  # FFmpeg's names; their decoders return floats
DECODERS = {"mp3": "mp3float", "aac": "aac"}
# the fast mode of each encoder: a half and an eighth of the default's time
OPTIONS = {"mp3": {"compression_level": "9"}, "aac": {"aac_coder": "fast"}}


def to_int16(x: np.ndarray) -> np.ndarray:
    """Rounded, and clipped as a converter does."""
    out: np.ndarray = np.clip(np.rint(x), -32768, 32767).astype(np.int16)
    return out


def reverberate(audio: np.ndarray, rt60: float, direct_db: float, gap: float, rng: np.random.Generator) -> np.ndarray:
    """A room: the direct sound, and after `gap` seconds noise that decays by 60 dB in `rt60` seconds; the level is
    kept.

    `direct_db` is the ratio of direct to reverberant energy. Sound from before the window leaves no reverberation in
    it.
    """
    from scipy.signal import fftconvolve

    first, length = max(1, round(gap * SAMPLE_RATE)), round((gap + rt60) * SAMPLE_RATE)
    room = np.zeros(length, np.float32)
    fall = np.exp(-3 * np.log(10) * np.arange(length - first) / (rt60 * SAMPLE_RATE))
    room[first:] = rng.standard_normal(length - first, np.float32) * fall.astype(np.float32)
    room *= 10 ** (-direct_db / 20) / np.sqrt(np.square(room).sum() + 1e-9)
    room[0] = 1
    x = audio.astype(np.float32)
    y = fftconvolve(x, room)[: len(x)]
    return to_int16(y * np.sqrt((np.square(x).mean() + 1e-9) / (np.square(y).mean() + 1e-9)))


def telephone(audio: np.ndarray, low: float, high: float) -> np.ndarray:
    """From `low` to `high` Hz (below 4,000), at 8 kHz, in 8 bits by G.711, and back at 16 kHz."""
    from scipy.signal import firwin, oaconvolve

    band = firwin(TAPS, (low, high), pass_zero=False, fs=SAMPLE_RATE).astype(np.float32)
    narrow = oaconvolve(audio.astype(np.float32), band, "same")
    x = np.zeros(len(audio), np.float32)
    x[::2] = mu_law()[to_int16(narrow[::2]).view(np.uint16)]
    return to_int16(2 * oaconvolve(x, band, "same"))


@cache
def mu_law() -> np.ndarray:
    """The result of G.711's mu-law for each 16-bit sample: i2 [65536], indexed by the sample as an unsigned number.

    ITU-T G.711 (11/1988), table 2: eight segments of 16 steps for each sign; the steps double from segment to segment.
    """
    segment, step = np.divmod(np.arange(128), 16)
    # levels of 14 bits, scaled to 16 bits
    values = 4 * ((2 * step + 33) * 2**segment - 33)
    borders = (values[1:] + values[:-1]) / 2
    samples = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    coded: np.ndarray = np.sign(samples) * values[np.searchsorted(borders, np.abs(samples), "right")]
    return coded.astype(np.int16)


def lossy(audio: np.ndarray, codec: str, bit_rate: int) -> np.ndarray:
    """Encoded as "mp3" or "aac" at `bit_rate` bits per second and decoded; no sample is shifted."""
    delay = codec_delay(codec)
    out = _coded(np.pad(audio, (0, delay)), codec, bit_rate)
    return to_int16(32768 * out[delay : delay + len(audio)])


@cache
def codec_delay(codec: str) -> int:
    """Samples by which encoding and decoding delay the sound, measured on noise with the installed FFmpeg.

    Encoders write the delay into containers, not into the stream, and decoders undo it for some codecs only.
    """
    from scipy.signal import fftconvolve

    noise = to_int16(3000 * np.random.default_rng(0).standard_normal(SAMPLE_RATE // 2))
    out = _coded(np.pad(noise, (0, SAMPLE_RATE // 4)), codec, 64_000)
    agreement = fftconvolve(out, noise[::-1].astype(np.float32))[len(noise) - 1 :]
    return int(np.argmax(agreement[: SAMPLE_RATE // 4]))


def _coded(audio: np.ndarray, codec: str, bit_rate: int) -> np.ndarray:
    """f4, at least as many samples as the input: the decoder's output, including its delay, then silence."""
    import av
    from av.audio.codeccontext import AudioCodecContext

    encoder = av.CodecContext.create(ENCODERS[codec], "w")
    decoder = av.CodecContext.create(DECODERS[codec], "r")
    assert isinstance(encoder, AudioCodecContext)
    assert isinstance(decoder, AudioCodecContext)
    for context in (encoder, decoder):
        context.sample_rate, context.layout = SAMPLE_RATE, "mono"
    encoder.format, encoder.time_base, encoder.bit_rate = "fltp", Fraction(1, SAMPLE_RATE), bit_rate
    encoder.options = OPTIONS[codec]
    encoder.open()
    decoder.extradata = encoder.extradata
    size = encoder.frame_size
    blocks = np.pad(audio, (0, -len(audio) % size)).astype(np.float32).reshape(-1, 1, size) / 32768
    packets = []
    for k, block in enumerate(blocks):
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, k * size
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoded = [frame.to_ndarray()[0] for packet in [*packets, None] for frame in decoder.decode(packet)]
    out = np.concatenate(decoded)
    return np.pad(out, (0, max(0, len(audio) - len(out))))
