"""Videos of one or more people, made from clips with one face: placed on a canvas, small, still, leaving, in other sizes.

Pictures are lists of u1 [height, width, 3]; `written` makes a file of them, with the sound of a clip."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

GREY = 90  # of an empty canvas


def pictures(path: str | Path) -> list[np.ndarray]:
    """The pictures of a file as they are stored, whatever their sizes."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def sound(path: str | Path) -> tuple[np.ndarray, int]:
    """The sound of a file, mono i2 [samples], and its rate."""
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
        resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
        found = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
        return np.concatenate([piece.to_ndarray().reshape(-1) for piece in [*found, *resampler.resample(None)]]), rate


def scaled(picture: np.ndarray, factor: float) -> np.ndarray:
    size = round(picture.shape[1] * factor), round(picture.shape[0] * factor)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def placed(size: tuple[int, int], *people: tuple[np.ndarray | None, int, int], grey: int = GREY) -> np.ndarray:
    """A canvas of (width, height) with pictures at (picture, left, top); None leaves a place empty."""
    canvas = np.full((size[1], size[0], 3), grey, np.uint8)
    for picture, left, top in people:
        if picture is not None:
            height, width = picture.shape[:2]
            canvas[top : top + height, left : left + width] = picture
    return canvas


def side_by_side(*films: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Films beside each other, from left to right, top edges level; the last picture of a short one stays."""
    length = max(len(film) for film in films)
    rows = [[film[min(k, len(film) - 1)] for film in films] for k in range(length)]
    width, height = sum(one.shape[1] for one in rows[0]), max(one.shape[0] for one in rows[0])
    lefts = np.cumsum([0, *(one.shape[1] for one in rows[0])]).tolist()
    return [placed((width, height), *((one, lefts[i], 0) for i, one in enumerate(row))) for row in rows]


def written(path: Path, film: Iterable[np.ndarray], heard: str | Path, codec: str = "libx264") -> Path:
    """An MP4 (H.264, AAC) of a film at 25 pictures a second with the sound of the clip `heard`."""
    samples, rate = sound(heard)
    with av.open(str(path), "w") as out:
        video, audio = None, out.add_stream("aac", rate=rate, layout="mono")
        for k, picture in enumerate(film):
            picture = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
            if video is None:
                video = out.add_stream(codec, rate=25, options={"crf": "18", "preset": "veryfast"})
                video.width, video.height, video.pix_fmt = picture.shape[1], picture.shape[0], "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(samples[None].astype(np.int16), format="s16", layout="mono")
        frame.rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    return path
