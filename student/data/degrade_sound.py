"""What rooms, telephones and codecs do to sound: reverberation, the telephone band with G.711, mp3 and AAC.

Every function takes and gives i2 [samples] at 16 kHz, changes nothing in place, and moves nothing in time: filters are
symmetric, a room's direct path stands at sample 0, and a codec's delay, which is measured once, is cut off. Lips and sound stay
in step. mp3 and AAC are the real ones of PyAV's FFmpeg, in memory.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np

from store.layout import SAMPLE_RATE

TAPS = 255  # of the telephone's band: its edges are 200 Hz wide
ENCODERS = {"mp3": "libmp3lame", "aac": "aac"}  # FFmpeg's names; the decoders that give floats
DECODERS = {"mp3": "mp3float", "aac": "aac"}
# the fast way of each encoder: half and an eighth of the time of the default
OPTIONS = {"mp3": {"compression_level": "9"}, "aac": {"aac_coder": "fast"}}


def to_int16(x: np.ndarray) -> np.ndarray:
    """Rounded, and clipped as a converter does."""
    out: np.ndarray = np.clip(np.rint(x), -32768, 32767).astype(np.int16)
    return out


def reverberate(audio: np.ndarray, rt60: float, direct_db: float, gap: float, rng: np.random.Generator) -> np.ndarray:
    """A room: the direct sound, and `gap` seconds later noise that falls by 60 dB in `rt60` seconds; the level stays.

    `direct_db` is the ratio of direct to reverberant energy. What was said before the window has left no trace in it.
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
    """What G.711's mu-law makes of each 16-bit sample: i2 [65536], at the sample's unsigned reading.

    ITU-T G.711 (11/1988), table 2: eight segments of 16 steps a side, each segment's steps twice as wide as those before.
    """
    segment, step = np.divmod(np.arange(128), 16)
    # levels of 14 bits, in units of 16 bits
    values = 4 * ((2 * step + 33) * 2**segment - 33)
    borders = (values[1:] + values[:-1]) / 2
    samples = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    coded: np.ndarray = np.sign(samples) * values[np.searchsorted(borders, np.abs(samples), "right")]
    return coded.astype(np.int16)


def lossy(audio: np.ndarray, codec: str, bit_rate: int) -> np.ndarray:
    """Through "mp3" or "aac" at that many bits a second; no sample is moved."""
    delay = codec_delay(codec)
    out = _coded(np.pad(audio, (0, delay)), codec, bit_rate)
    return to_int16(32768 * out[delay : delay + len(audio)])


@cache
def codec_delay(codec: str) -> int:
    """Samples by which coding and decoding move the sound, as measured on noise with the FFmpeg that is here.

    Encoders write it into containers, not into what they encode, and decoders undo it for some codecs only.
    """
    from scipy.signal import fftconvolve

    noise = to_int16(3000 * np.random.default_rng(0).standard_normal(SAMPLE_RATE // 2))
    out = _coded(np.pad(noise, (0, SAMPLE_RATE // 4)), codec, 64_000)
    agreement = fftconvolve(out, noise[::-1].astype(np.float32))[len(noise) - 1 :]
    return int(np.argmax(agreement[: SAMPLE_RATE // 4]))


def _coded(audio: np.ndarray, codec: str, bit_rate: int) -> np.ndarray:
    """f4, at least as many samples as went in: the decoder's output, its delay included, and silence."""
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
