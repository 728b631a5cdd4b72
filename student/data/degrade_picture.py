"""Effects of cameras and codecs on pictures: blur, fewer pixels, sensor noise, JPEG, H.264.

Every function takes and returns u1 [frames, height, width] of any size, changes nothing in place, and treats all frames
alike, because a clip keeps its lens and codec. The codecs are real (libjpeg from OpenCV, libx264 and FFmpeg's decoder
from PyAV) and run in memory, on one thread, so that the same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

FPS = Fraction(25)
JPEG_SIDE = 65_500  # pixels: libjpeg's limit
# with lookahead x264 is not deterministic, even on one thread: other bytes in 29 of 100 windows at preset veryfast
REPEATABLE = "rc-lookahead=0:sync-lookahead=0:mbtree=0"
SMALLEST = 16  # pixels of the shortest side for x264: one macroblock


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur by `sigma` pixels, edges mirrored."""
    import cv2

    # three deviations to each side; GaussianBlur itself is bit-exact on every processor and takes three times as long
    line = cv2.getGaussianKernel(2 * int(np.ceil(3 * sigma)) + 1, sigma, cv2.CV_32F)
    return _each(picture, lambda frame: cv2.sepFilter2D(frame, -1, line, line))


def low_resolution(picture: np.ndarray, share: float) -> np.ndarray:
    """Scaled down to `share` of each side by area averages, and up again bilinearly."""
    import cv2

    height, width = picture.shape[1:]
    small = max(1, round(width * share)), max(1, round(height * share))

    def one(frame: np.ndarray) -> np.ndarray:
        down = cv2.resize(frame, small, interpolation=cv2.INTER_AREA)
        return cv2.resize(down, (width, height), interpolation=cv2.INTER_LINEAR)

    return _each(picture, one)


def sensor_noise(picture: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of `sigma` grey levels at mid grey, independent for each pixel; half of its power grows with brightness, as
    photon noise does.

    Drawn from 256 quantiles of the normal distribution: a table of (level, quantile) gives a pixel in one step.
    """
    from scipy.special import ndtri

    level = np.arange(256)
    spread = sigma * np.sqrt(0.5 + 0.5 * level / 128)
    table = np.rint(level[:, None] + spread[:, None] * ndtri((level + 0.5) / 256))
    levels: np.ndarray = np.clip(table, 0, 255).astype(np.uint8).ravel()
    quantile = np.frombuffer(rng.bytes(picture.size), np.uint8).reshape(picture.shape)
    return levels.take((picture.astype(np.uint16) << 8) | quantile)


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    """Each frame through JPEG of that quality (libjpeg's 1 to 100).

    Frames are coded one below the other, many in one image. Blocks of 8 x 8 pixels are independent, so with heights
    padded to whole blocks this equals one image per frame, and is four times as fast.
    """
    import cv2

    height, width = picture.shape[1:]
    tall = np.pad(picture, ((0, 0), (0, -height % 8), (0, 0)), "edge")
    at_once = max(1, JPEG_SIDE // tall.shape[1])
    out = []
    for first in range(0, len(tall), at_once):
        part = np.ascontiguousarray(tall[first : first + at_once])
        _, data = cv2.imencode(".jpg", part.reshape(-1, width), [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
        assert decoded is not None
        out.append(decoded.reshape(part.shape))
    return np.ascontiguousarray(np.concatenate(out)[:, :height])


def h264(picture: np.ndarray, crf: int, preset: str) -> np.ndarray:
    """The frames encoded by libx264 at that constant rate factor and preset, and decoded again; grey, one thread."""
    import av
    from av.video.codeccontext import VideoCodecContext

    frames, height, width = picture.shape
    room = [(0, 0)] + [(0, max(SMALLEST, side + side % 2) - side) for side in (height, width)]
    padded = np.pad(picture, room, "edge") if max(room) > (0, 0) else picture
    encoder = av.CodecContext.create("libx264", "w")
    decoder = av.CodecContext.create("h264", "r")
    assert isinstance(encoder, VideoCodecContext)
    assert isinstance(decoder, VideoCodecContext)
    encoder.height, encoder.width = padded.shape[1:]
    encoder.pix_fmt = "gray"
    encoder.framerate, encoder.time_base = FPS, 1 / FPS
    encoder.thread_count = decoder.thread_count = 1
    encoder.options = {"crf": str(crf), "preset": preset, "x264-params": REPEATABLE}
    packets = []
    for k, plane in enumerate(padded):
        frame = av.VideoFrame.from_ndarray(plane, format="gray")
        frame.pts = k
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    shown = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    assert len(shown) == frames, f"{frames} frames went into H.264 and {len(shown)} came out"
    # raw luma: a conversion to grey would stretch its range
    planes = [np.frombuffer(bytes(f.planes[0]), np.uint8).reshape(-1, f.planes[0].line_size) for f in shown]
    return np.stack([plane[:height, :width] for plane in planes])


def _each(picture: np.ndarray, work: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Apply `work` to every frame; the result is contiguous."""
    out = np.empty(picture.shape, np.uint8)
    for k, frame in enumerate(np.ascontiguousarray(picture)):
        out[k] = work(frame)
    return out
