"""Augmentation of training windows that keeps their content: which degradations, how often, how strong.

Picture: crop, mirror, light, a grey patch, blur, fewer pixels, sensor noise, JPEG, H.264. Sound: a room, noise, level,
the telephone, mp3 and AAC. The order is that of a real video: scene, lens and sensor, codec. Each function depends only
on its input and a generator, and treats a whole window alike (a clip keeps its camera and microphone), real or
mismatched. Nothing is shifted in time and the motion of the lips stays, so labels remain valid. `degrade_picture` and
`degrade_sound` implement the kinds. A kind that needs OpenCV, or a codec of PyAV's FFmpeg, is skipped where that is
missing, and `report_missing` says so; all other random draws stay the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from store.layout import SAMPLES_PER_FRAME
from student.data import degrade_picture, degrade_sound
from student.data.degrade_sound import to_int16

log = logging.getLogger(__name__)

VOICES = 4  # mixed for babble

Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Kind:
    """One degradation: the share of windows that get it, the function, which draws its own strength, and what it needs
    in addition to numpy and scipy: OpenCV ("cv2") or a codec of PyAV's FFmpeg."""

    chance: float
    change: Change
    needs: str = ""


def crop_place(rng: np.random.Generator, margin: int) -> tuple[int, int]:
    """Row and column of the crop, each from 0 to `margin` pixels."""
    y, x = rng.integers(0, margin + 1, 2)
    return int(y), int(x)


def augment_mouth(mouth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply the kinds of PICTURE, each in its share of windows: u1 [frames, height, width] of any size to the same."""
    return mixed(mouth, PICTURE, rng)


def augment_sound(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply the kinds of SOUND, each in its share of windows: i2 [640 * frames] to the same."""
    return mixed(audio, SOUND, rng)


def mixed(x: np.ndarray, kinds: dict[str, Kind], rng: np.random.Generator) -> np.ndarray:
    """Apply the kinds of a table in their order, each in its share of windows."""
    for kind in kinds.values():
        if rng.random() < kind.chance:
            # each kind has its own generator: its draws do not depend on whether another kind's codec is installed
            own = np.random.default_rng(rng.integers(1 << 63))
            if not kind.needs or works(kind.needs):
                x = kind.change(x, own)
    return x


def report_missing() -> None:
    """One warning for each kind that does not work on this machine."""
    for name, kind in (PICTURE | SOUND).items():
        if kind.needs and not works(kind.needs):
            log.warning(
                "%s does not work here, so training goes without the augmentation %s; "
                "the wheels of av and opencv-contrib-python in requirements.txt include it",
                kind.needs, name,
            )  # fmt: skip


@cache
def works(needed: str) -> bool:
    """Whether OpenCV, or a codec's encoder and decoder, works: tried once per process."""
    try:
        if needed == "cv2":
            import cv2

            return hasattr(cv2, "imencode")
        import av
    except ImportError:
        return False
    try:
        if needed == "libx264":
            degrade_picture.h264(np.zeros((2, 16, 16), np.uint8), 30, "ultrafast")
        else:
            degrade_sound.codec_delay(needed)
    except (av.FFmpegError, av.codec.codec.UnknownCodecError):
        return False
    return True


# -- the picture's kinds ----------------------------------------------------------------------------------------------------


def mirror(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(picture[:, :, ::-1])


def light(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gamma, contrast and brightness."""
    gamma, contrast, more = np.exp(rng.uniform(-0.4, 0.4)), rng.uniform(0.6, 1.2), rng.uniform(-25, 25)
    level = np.arange(256) / 255
    curve = np.clip((255 * level**gamma - 128) * contrast + 128 + more, 0, 255).astype(np.uint8)
    import cv2

    return cv2.LUT(picture.reshape(-1, picture.shape[2]), curve).reshape(picture.shape)


def patch(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A grey rectangle, fixed during the window."""
    height, width = picture.shape[1:]
    h, w = rng.integers(height // 8, height // 3), rng.integers(width // 8, width // 3)
    y, x = rng.integers(0, height - h), rng.integers(0, width - w)
    out = picture.copy()
    out[:, y : y + h, x : x + w] = rng.integers(40, 200)
    return out


def blur(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return degrade_picture.blur(picture, rng.uniform(0.5, 3))


def low_resolution(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return degrade_picture.low_resolution(picture, rng.uniform(0.25, 0.7))


def sensor_noise(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """From hardly visible to a dark room; weak noise is as frequent as strong noise."""
    return degrade_picture.sensor_noise(picture, float(np.exp(rng.uniform(0, np.log(25)))), rng)


def jpeg(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return degrade_picture.jpeg(picture, int(rng.integers(8, 61)))


def h264(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """From hardly visible to blocks that hide the teeth; with or without the deblocking filter, depending on the
    preset."""
    return degrade_picture.h264(picture, int(rng.integers(24, 47)), "veryfast" if rng.random() < 0.5 else "ultrafast")


# -- the sound's kinds ------------------------------------------------------------------------------------------------------


def room(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """From a booth to a hall; the first echo comes 1 to 10 ms after the direct sound."""
    rt60, direct, gap = rng.uniform(0.15, 0.9), rng.uniform(-3, 12), rng.uniform(0.001, 0.01)
    return degrade_sound.reverberate(audio, rt60, direct, gap, rng)


def noise(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """5 to 40 dB below the speech: white, falling by 6 dB per octave, or like other people's talk.

    The level refers to the louder half of the window's frames, so that pauses do not affect it.
    """
    x = audio.astype(np.float32)
    frames = x[: len(x) // SAMPLES_PER_FRAME * SAMPLES_PER_FRAME].reshape(-1, SAMPLES_PER_FRAME)
    power = np.sort(np.square(frames).mean(1))[len(frames) // 2 :].mean()
    which = rng.random()
    hiss = _babble(x, rng) if which < 0.3 else rng.standard_normal(len(x), np.float32)
    if which > 0.7:
        hiss = _brown(hiss)
    snr = rng.uniform(5, 40)
    return to_int16(x + hiss * np.float32(np.sqrt(power / (np.square(hiss).mean() + 1e-9)) * 10 ** (-snr / 20)))


def level(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """-12 to +6 dB, with clipping."""
    return to_int16(audio * np.float32(10 ** (rng.uniform(-12, 6) / 20)))


def telephone(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return degrade_sound.telephone(audio, rng.uniform(200, 400), rng.uniform(2800, 3400))


def mp3(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return degrade_sound.lossy(audio, "mp3", int(rng.choice([8_000, 16_000, 24_000, 32_000, 64_000])))


def aac(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return degrade_sound.lossy(audio, "aac", int(rng.integers(10_000, 48_001)))


def _brown(white: np.ndarray) -> np.ndarray:
    """White noise through a leaky integrator (corner about 130 Hz)."""
    from scipy.signal import lfilter

    brown: np.ndarray = lfilter([1.0], [1.0, -0.95], white)
    return brown.astype(np.float32)


def _babble(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The window's own sound reversed, from several positions at once: rhythm and spectrum of speech, but not these
    words."""
    backwards = sound[::-1]
    voices: np.ndarray = np.stack([np.roll(backwards, start) for start in rng.integers(0, len(sound), VOICES)])
    return np.asarray(voices.sum(0))


PICTURE = {
    "mirror": Kind(0.5, mirror),
    "light": Kind(1.0, light, "cv2"),
    "patch": Kind(0.3, patch),
    "blur": Kind(0.1, blur, "cv2"),
    "low resolution": Kind(0.1, low_resolution, "cv2"),
    "sensor noise": Kind(0.2, sensor_noise),
    "JPEG": Kind(0.08, jpeg, "cv2"),
    "H.264": Kind(0.06, h264, "libx264"),
}
SOUND = {
    "room": Kind(0.3, room),
    "noise": Kind(0.7, noise),
    "level": Kind(1.0, level),
    "telephone": Kind(0.12, telephone),
    "mp3": Kind(0.02, mp3, "mp3"),
    "AAC": Kind(0.03, aac, "aac"),
}
