"""Camera, light, noise and room of a clip, and the one encoder for all clips, real or forged.

The variation between clips comes from the plan (nuisances, as quantiles) and the clip's generator: size, position, tilt
and perspective of the picture, light and colour, blur and noise, level and background of the sound. Within a clip the
head sways and turns, brows move and eyes blink, independently of the words.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from concord.frames import FPS
from pipelines.demo.portrait import Portrait

SIDE = 288  # pixels of a frame; a multiple of 16 suits the encoder
SAMPLE_RATE = 44_100
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
STEP = 8  # pixels between the nodes of the camera's map
FACE = (256.0, 240.0)  # canvas position that the camera looks at
PIVOT = (256.0, 350.0)  # the head nods and turns around the neck


@dataclass(frozen=True)
class Coding:
    """How all clips of a corpus are encoded, real or forged."""

    sample_rate: int = SAMPLE_RATE  # of the sound, a multiple of FPS
    bit_rate: int = 96_000  # of the sound
    preset: str = "superfast"  # of x264
    crf: int = 23  # of x264: smaller is better
    x264: str = ""  # its further parameters
    faststart: bool = False  # whether the index comes first, so that a browser can play before all is loaded


@dataclass(frozen=True)
class Camera:
    """Parameters of one clip; angles in degrees, lengths in pixels of the frame unless noted."""

    scale: float  # frame pixels per canvas pixel
    angle: float
    offset: np.ndarray  # [2]
    perspective: np.ndarray  # [2], change of scale over half a frame
    sway: np.ndarray  # [frames, 6]: roll, right, down, turn, nod (canvas pixels), brow
    blink: np.ndarray  # [frames] 0 open to 1 closed
    gain: np.ndarray  # [SIDE, SIDE, 3]
    gamma: float
    blur: float
    noise: float  # standard deviation in grey levels
    flicker: np.ndarray  # [frames]

    @classmethod
    def draw(cls, rng: np.random.Generator, num_frames: int, nuisances: Mapping[str, float]) -> "Camera":
        at = np.linspace(-1, 1, SIDE)
        slope = rng.uniform(-0.22, 0.22, 2)
        light = 1 + slope[0] * at[None, :] + slope[1] * at[:, None]
        light = light - rng.uniform(0, 0.18) * (at[None, :] ** 2 + at[:, None] ** 2) / 2
        colour = _between(0.82, 1.12, nuisances["light"]) * rng.uniform(0.95, 1.05, 3)
        amount = np.array([1.4, 2.2, 1.6, 2.2, 1.6, 1.4])
        return cls(
            scale=_between(0.80, 1.05, nuisances["scale"]),
            angle=rng.uniform(-9, 9),
            offset=rng.uniform(-12, 12, 2),
            perspective=rng.uniform(-0.06, 0.06, 2),
            sway=_wander(rng, num_frames, 6) * amount * rng.uniform(0.4, 1.0, 6),
            blink=_blinks(rng, num_frames),
            gain=(light[..., None] * colour).astype(np.float32),
            gamma=rng.uniform(0.85, 1.2),
            blur=_between(0.0, 0.8, nuisances["blur"]),
            noise=_between(0.8, 4.0, nuisances["noise"]),
            flicker=1 + 0.012 * _wander(rng, num_frames, 1)[:, 0],
        )


def frames(portrait: Portrait, shapes: np.ndarray, camera: Camera, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Pictures u1 [SIDE, SIDE, 3] of the portrait with mouth shapes [frames, 8]."""
    grain = rng.normal(0, camera.noise, (SIDE + 64, SIDE + 64, 3)).astype(np.int16)
    curve = np.clip(255 * (np.arange(256) / 255) ** camera.gamma + 0.5, 0, 255).astype(np.uint8)
    for shape, blink, sway, flicker in zip(shapes, camera.blink, camera.sway, camera.flicker, strict=True):
        canvas = portrait.draw(shape, float(blink))
        x, y = _camera_map(camera, sway)
        picture = cv2.remap(canvas, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        picture = cv2.multiply(cv2.LUT(picture, curve), camera.gain, scale=float(flicker), dtype=cv2.CV_8U)
        if camera.blur > 0.3:
            picture = cv2.GaussianBlur(picture, (5, 5), camera.blur)
        dx, dy = rng.integers(0, 64, 2)
        noise = grain[dy : dy + SIDE, dx : dx + SIDE]
        yield cv2.add(picture, np.ascontiguousarray(noise), dtype=cv2.CV_8U)


def room(speech: np.ndarray, rng: np.random.Generator, nuisances: Mapping[str, float]) -> np.ndarray:
    """Speech f4 [samples] at the clip's own level with background noise: i2 [samples]."""
    from scipy.signal import lfilter

    level = 10 ** (_between(-25, -18, nuisances["level"]) / 20)
    background = 10 ** (_between(-60, -42, nuisances["background"]) / 20)
    tilt, colour = rng.uniform(-0.25, 0.25), rng.uniform(0.5, 0.97)
    voice = lfilter([1, tilt], [1], speech)
    voice *= level / max(float(np.sqrt(np.mean(np.square(voice)))), 1e-6)
    noise = lfilter([1], [1, -colour], rng.normal(size=len(speech)))
    noise *= background / np.sqrt(np.mean(np.square(noise)))
    return np.clip((voice + noise) * 32767, -32767, 32767).astype(np.int16)


def encode(path: Path, pictures: Iterable[np.ndarray], samples: np.ndarray, coding: Coding = Coding()) -> None:
    """Write pictures u1 [height, width, 3] of one even size, and mono sound i2 [sample_rate / FPS * frames], as H.264 and
    AAC in MP4, one thread."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"movflags": "+faststart"} if coding.faststart else {}
    part = coding.sample_rate // FPS
    with av.open(str(path), "w", format="mp4", options=options) as container:
        video = container.add_stream("libx264", rate=FPS)
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1
        # Without macroblock trees: with AVX-512 they read memory that x264 has not written, and runs differ.
        video.options = {"preset": coding.preset, "crf": str(coding.crf), "x264-params": f"mbtree=0{coding.x264}"}
        audio = container.add_stream("aac", rate=coding.sample_rate, layout="mono")
        audio.bit_rate = coding.bit_rate
        count = 0
        for picture in pictures:
            if not count:
                video.height, video.width = picture.shape[:2]
            planes = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420).astype(np.uint8, copy=False)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = count
            frame.time_base = Fraction(1, FPS)
            container.mux(video.encode(frame))
            sound = av.AudioFrame.from_ndarray(
                samples[None, count * part : (count + 1) * part], format="s16", layout="mono"
            )
            sound.sample_rate = coding.sample_rate
            sound.pts = count * part
            sound.time_base = Fraction(1, coding.sample_rate)
            container.mux(audio.encode(sound))
            count += 1
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    assert count * part == len(samples), (count, len(samples))


def _camera_map(camera: Camera, sway: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every pixel of the frame its position on the canvas: x and y, f4 [SIDE, SIDE] each."""
    roll, right, down, turn, nod, brow = sway
    nodes = np.arange(0, SIDE + 1, STEP, dtype=np.float32)
    x, y = np.meshgrid(nodes - SIDE / 2 - camera.offset[0], nodes - SIDE / 2 - camera.offset[1])
    depth = 1 + camera.perspective[0] * x / (SIDE / 2) + camera.perspective[1] * y / (SIDE / 2)
    cos, sin = np.cos(np.radians(camera.angle)), np.sin(np.radians(camera.angle))
    x, y = x / depth / camera.scale, y / depth / camera.scale
    x, y = FACE[0] + cos * x - sin * y, FACE[1] + sin * x + cos * y
    # The head moves, shoulders and background do not: full motion inside, none outside, smooth between.
    radius = np.hypot((x - 262) / 190, (y - 200) / 195)
    fade = np.clip((1.15 - radius) / 0.55, 0, 1)
    head = fade * fade * (3 - 2 * fade)
    # A turn shifts the nose and mouth more than the ears: parallax of a rounded head.
    relief = np.exp(-np.square((x - 257) / 85) - np.square((y - 255) / 110))
    angle = np.radians(roll) * head
    dx = -angle * (y - PIVOT[1]) + right * head + turn * relief
    dy = angle * (x - PIVOT[0]) + down * head + nod * relief
    brows = np.exp(-np.square((y - 177) / 12)) * (
        np.exp(-np.square((x - 213) / 30)) + np.exp(-np.square((x - 311) / 30))
    )
    dy = dy - brow * brows
    half = np.array([[1 / STEP, 0, 0], [0, 1 / STEP, 0]], np.float32)  # nodes are at pixels 0, 8, 16, ...
    both = np.dstack([x - dx, y - dy]).astype(np.float32)
    full = cv2.warpAffine(both, half, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return full[..., 0], full[..., 1]


def _between(low: float, high: float, quantile: float) -> float:
    return low + quantile * (high - low)


def _wander(rng: np.random.Generator, num_frames: int, columns: int) -> np.ndarray:
    """Slow random motion [num_frames, columns] of about unit size: four sines under 1 Hz each."""
    time_s = np.arange(num_frames)[:, None, None] / FPS
    rate, phase = rng.uniform(0.08, 0.9, (4, columns)), rng.uniform(0, 2 * np.pi, (4, columns))
    return (np.sin(2 * np.pi * rate * time_s + phase) / (1 + 2 * rate)).sum(axis=1)


def _blinks(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    closed = np.zeros(num_frames)
    at = rng.uniform(0, 3.0)
    while at < num_frames / FPS:
        for k, value in enumerate((0.45, 1.0, 0.9, 0.45, 0.15)):
            if int(at * FPS) + k < num_frames:
                closed[int(at * FPS) + k] = value
        at += rng.uniform(1.5, 4.5)
    return closed
