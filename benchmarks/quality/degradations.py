"""Fixed degradations of whole clips for `python -m benchmarks robustness`, by other code than training's.

So nothing is gained by having trained on the very same arithmetic. Codecs go through containers (MP4, MP3, Ogg), whose demuxers
undo delays; H.264 is of preset medium in colour's format, JPEG is Pillow's, blur is scipy's, the room is a shoebox by image
sources (Allen and Berkley 1979), and noise may be other talk. Pictures are u1 [frames, height, width], sound i2 [samples] at
16 kHz; `rng` is the clip's own.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from store.layout import FPS, SAMPLE_RATE

Picture = Callable[[np.ndarray, np.random.Generator], np.ndarray]
# `others` i2 [n] at 16 kHz: talk that is not the clip's
Sound = Callable[[np.ndarray, np.random.Generator, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Degradation:
    """What is done to the picture and to the sound; None = nothing."""

    picture: Picture | None = None
    sound: Sound | None = None


# -- picture ----------------------------------------------------------------------------------------------------------------


def h264(picture: np.ndarray, crf: int) -> np.ndarray:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        # x264's lookahead would give other bytes now and then
        options = {"crf": str(crf), "preset": "medium", "x264-params": "rc-lookahead=0:mbtree=0:threads=1"}
        stream = container.add_stream("libx264", FPS, options=options)
        stream.height, stream.width = picture.shape[1:]
        stream.pix_fmt = "yuv420p"
        for frame in picture:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        out = np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])
    assert out.shape == picture.shape
    return out


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    from PIL import Image

    out = []
    for frame in picture:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "jpeg", quality=quality)
        out.append(np.asarray(Image.open(file)))
    return np.stack(out)


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(picture.astype(np.float32), (0, sigma, sigma)).round().astype(np.uint8)


def small(picture: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    size = picture.shape[2], picture.shape[1]
    frames = [Image.fromarray(f).resize((side, side), Image.Resampling.BICUBIC) for f in picture]
    return np.stack([np.asarray(f.resize(size, Image.Resampling.BICUBIC)) for f in frames])


def few_photons(picture: np.ndarray, rng: np.random.Generator, at_white: float) -> np.ndarray:
    counts = rng.poisson(picture * (at_white / 255))
    return np.clip(np.rint(counts * (255 / at_white)), 0, 255).astype(np.uint8)


# -- sound ------------------------------------------------------------------------------------------------------------------


def mixed(sound: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Signal-to-noise ratio in dB over the whole clip."""
    x, n = sound.astype(np.float64), noise.astype(np.float64)
    gain = np.sqrt(np.square(x).mean() / (np.square(n).mean() + 1e-9)) * 10 ** (-snr / 20)
    return _int16(x + gain * n)


def white(sound: np.ndarray, rng: np.random.Generator, snr: float) -> np.ndarray:
    return mixed(sound, rng.standard_normal(len(sound)), snr)


def babble(sound: np.ndarray, rng: np.random.Generator, others: np.ndarray, snr: float, voices: int = 6) -> np.ndarray:
    """The sum of pieces of other talk."""
    starts = rng.integers(0, len(others) - len(sound), voices)
    return mixed(sound, sum(others[a : a + len(sound)].astype(np.float64) for a in starts), snr)


def shoebox(size: tuple[float, float, float], reflects: float, distance: float, order: int = 12) -> np.ndarray:
    """Impulse response of a room of `size` metres whose walls reflect that share of the pressure, the source `distance` metres
    before the microphone, from the direct sound on. With a share below 0 echoes change sign at each wall and do not add up to a
    rumble (Lehmann and Johansson 2008)."""
    room = np.array(size)
    ear = room * (0.41, 0.37, 0.45)
    source = ear + np.array((distance, 0, 0))
    response = np.zeros(2 * SAMPLE_RATE)
    for cell in itertools.product(range(-order, order + 1), repeat=3):
        for flip in itertools.product((0, 1), repeat=3):
            m, f = np.array(cell), np.array(flip)
            image = (1 - 2 * f) * source + 2 * m * room
            far = float(np.linalg.norm(image - ear))
            bounces = np.abs(m - f).sum() + np.abs(m).sum()
            place = round((far - distance) / 343 * SAMPLE_RATE)
            if place < len(response):
                response[place] += reflects**bounces / far
    response = response[: np.flatnonzero(np.abs(response) > 1e-4 * np.abs(response).max())[-1] + 1]
    return response / np.abs(response[0])


def room(sound: np.ndarray, response: np.ndarray) -> np.ndarray:
    from scipy.signal import fftconvolve

    x = sound.astype(np.float64)
    y = fftconvolve(x, response)[: len(x)]
    return _int16(y * np.sqrt((np.square(x).mean() + 1e-9) / (np.square(y).mean() + 1e-9)))


def narrow(sound: np.ndarray) -> np.ndarray:
    """300 to 3,400 Hz, both ways through a Butterworth filter: no delay."""
    from scipy.signal import butter, sosfiltfilt

    return _int16(
        sosfiltfilt(butter(6, (300, 3400), "bandpass", fs=SAMPLE_RATE, output="sos"), sound.astype(np.float64))
    )


def coded(sound: np.ndarray, container: str, codec: str, bit_rate: int) -> np.ndarray:
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, SAMPLE_RATE, layout="mono")
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as back:
        resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
        frames = [f for x in [*back.decode(audio=0), None] for f in resampler.resample(x)]
    heard = np.concatenate([f.to_ndarray()[0] for f in frames])[: len(sound)]
    return np.pad(heard, (0, len(sound) - len(heard)))


def _int16(x: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(x), -32768, 32767).astype(np.int16)


def degradations() -> dict[str, Degradation]:
    """All of them by name, the clean clip first."""
    hall = shoebox((7.1, 5.3, 2.9), -0.85, 1.2)

    def call(sound: np.ndarray, rng: np.random.Generator, others: np.ndarray) -> np.ndarray:
        return coded(babble(room(sound, hall), rng, others, 10), "ogg", "libopus", 12_000)

    pictures: dict[str, Picture] = {
        "H.264 CRF 40": lambda p, _: h264(p, 40),
        "H.264 CRF 48": lambda p, _: h264(p, 48),
        "JPEG quality 15": lambda p, _: jpeg(p, 15),
        "blur of 2 pixels": lambda p, _: blur(p, 2),
        "12 x 12 pixels": lambda p, _: small(p, 12),
        "30 photons at white": lambda p, rng: few_photons(p, rng, 30),
    }
    sounds: dict[str, Sound] = {
        "white noise, 5 dB": lambda s, rng, _: white(s, rng, 5),
        "babble, 5 dB": lambda s, rng, others: babble(s, rng, others, 5),
        "room, 1.2 m away": lambda s, *_: room(s, hall),
        "300 to 3,400 Hz": lambda s, *_: narrow(s),
        "mp3, 32 kbit/s": lambda s, *_: coded(s, "mp3", "libmp3lame", 32_000),
        "Opus, 12 kbit/s": lambda s, *_: coded(s, "ogg", "libopus", 12_000),
    }
    return {
        "clean": Degradation(),
        **{name: Degradation(picture=change) for name, change in pictures.items()},
        **{name: Degradation(sound=change) for name, change in sounds.items()},
        "a bad call": Degradation(lambda p, _: h264(small(p, 48), 38), call),
    }
