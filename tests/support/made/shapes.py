"""Files whose pictures change their size, are HDR, interlaced, small, cropped, or show several people."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from made.kinds import Draw, Made, Right, kind, tell, whole
from made.writing import FPS, Clip, Track, Video, write


def _scaled(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    way = cv2.INTER_AREA if width < picture.shape[1] else cv2.INTER_CUBIC
    return cv2.resize(picture, (width, height), interpolation=way)


@kind
def size_grows(clip: Clip, rng: Draw, folder: Path) -> Made:
    """WebRTC that starts small and grows."""
    at, high, wide = int(rng.integers(15, 50)), *clip.pictures[0].shape[:2]
    small, large = float(rng.choice([0.25, 0.33, 0.5])), float(rng.choice([1, 1.5, 2]))
    sizes = [tuple(2 * round(side * scale / 2) for side in (wide, high)) for scale in (small, large)]
    pictures = [_scaled(p, *sizes[k >= at]) for k, p in enumerate(clip.pictures)]
    name, codec, sound = [("a.webm", "libvpx", "libopus"), ("a.mkv", "libx264", "aac"), ("a.ts", "libx264", "mp2")][
        rng.integers(0, 3)
    ]
    options = {"x264-params": "repeat-headers=1"} if codec == "libx264" else {}
    path = write(folder / name, Video(pictures, codec=codec, options=options), [Track(clip.sound[None], codec=sound)])
    right = whole(clip, facts=tell("size_changes"), contrast=False, lips=0.9)
    return Made(path, right, {"at": at, "sizes": sizes, "name": name})


@kind
def phone_is_turned(clip: Clip, rng: Draw, folder: Path) -> Made:
    """The picture is landscape, then portrait, at the same scale or another."""
    at, high, wide = int(rng.integers(20, 55)), *clip.pictures[0].shape[:2]
    scale = float(rng.choice([1, 1.25, 1.5]))
    narrow = int(wide * rng.uniform(0.55, 0.7))
    left = (wide - narrow) // 2
    size = tuple(2 * round(side * scale / 2) for side in (narrow, high))
    pictures = [_scaled(p[:, left : left + narrow], *size) if k >= at else p for k, p in enumerate(clip.pictures)]
    if rng.random() < 0.5:
        pictures = [p if k < at else q for k, (p, q) in enumerate(zip(clip.pictures, pictures, strict=True))]
    name, codec, sound = [("a.webm", "libvpx", "libopus"), ("a.ts", "libx264", "mp2")][rng.integers(0, 2)]
    options = {"x264-params": "repeat-headers=1"} if codec == "libx264" else {}
    path = write(folder / name, Video(pictures, codec=codec, options=options), [Track(clip.sound[None], codec=sound)])
    return Made(path, whole(clip, facts=tell("size_changes")), {"at": at, "size": size, "name": name})


@kind
def small_face(clip: Clip, rng: Draw, folder: Path) -> Made:
    """A webcam inset in a screen, or a person across a room."""
    wide, high = [(1920, 1080), (1280, 720)][rng.integers(0, 2)]
    height = int(rng.integers(150, 200)) if wide == 1920 else int(rng.integers(130, 170))
    width = 2 * round(clip.pictures[0].shape[1] * height / clip.pictures[0].shape[0] / 2)
    ground = np.full((high, wide, 3), rng.integers(20, 230, 3), np.uint8)
    for _ in range(int(rng.integers(3, 30))):  # windows and lines of a screen
        x, y = int(rng.integers(0, wide - 200)), int(rng.integers(0, high - 50))
        ground[y : y + int(rng.integers(2, 200)), x : x + int(rng.integers(50, 400))] = rng.integers(0, 255, 3)
    x, y = int(rng.integers(0, wide - width)), int(rng.integers(0, high - height))
    pictures = []
    for picture in clip.pictures:
        frame = ground.copy()
        frame[y : y + height, x : x + width] = _scaled(picture, width, height)
        pictures.append(frame)
    options = {"preset": "ultrafast", "crf": "10"}
    path = write(folder / "a.mp4", Video(pictures, options=options), [Track(clip.sound[None])])
    return Made(path, whole(clip, contrast=False, lips=0.85), {"size": (wide, high), "inset": (x, y, width, height)})


@kind
def hdr(clip: Clip, rng: Draw, folder: Path) -> Made:
    """HDR10 and HLG as phones film them."""
    transfer = str(rng.choice(["pq", "hlg"]))
    white = float(rng.choice([100, 203, 300])) if transfer == "pq" else 203.0

    def prepare(context: Any) -> None:
        context.color_primaries, context.colorspace, context.color_range = 9, 9, 1
        context.color_trc = 16 if transfer == "pq" else 18

    def frame(picture: np.ndarray) -> av.VideoFrame:
        return _hdr_frame(picture, transfer, white)

    video = Video(clip.pictures, codec="libx265", form="yuv420p10le", prepare=prepare, frame=frame)
    path = write(folder / str(rng.choice(["a.mp4", "a.mov"])), video, [Track(clip.sound[None])])
    return Made(path, whole(clip, facts=tell("hdr")), {"transfer": transfer, "white": white})


# BT.709 to BT.2020 in linear light (ITU-R BT.2087-0), and the luma weights of BT.2020.
TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
LUMA = np.array([0.2627, 0.6780, 0.0593])


def _hdr_frame(picture: np.ndarray, transfer: str, white: float) -> av.VideoFrame:
    """An SDR picture (BT.1886) as PQ or HLG (ITU-R BT.2100), limited range, yuv420p10le."""
    linear = (picture.astype(np.float64) / 255) ** 2.4 @ TO_2020.T
    if transfer == "pq":
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        y = np.clip(linear * white / 10_000, 0, 1) ** m1
        signal = ((c1 + c2 * y) / (1 + c3 * y)) ** m2
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        # SDR white at 75 % of the signal (ITU-R BT.2408): scene light .265 of the peak; the OOTF of 1.2 undone on luma.
        light = linear * 203 / 1000
        luma = np.maximum(light @ LUMA, 1e-6)[..., None]
        scene = np.clip(light * luma ** (1 / 1.2 - 1), 0, 1)
        signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)
    luma = signal @ LUMA
    planes = [luma, (signal[..., 2] - luma) / 1.8814, (signal[..., 0] - luma) / 1.4746]
    frame = av.VideoFrame(picture.shape[1], picture.shape[0], "yuv420p10le")
    for k, (plane, target) in enumerate(zip(planes, frame.planes, strict=True)):
        if k:
            plane = plane.reshape(plane.shape[0] // 2, 2, plane.shape[1] // 2, 2).mean((1, 3))
        value = np.clip(np.round(plane * 876 + 64 if not k else plane * 896 + 512), 0, 1023).astype("<u2")
        row = np.zeros((target.height, target.line_size // 2), "<u2")
        row[:, : value.shape[1]] = value
        target.update(row.tobytes())
    frame.color_trc = 16 if transfer == "pq" else 18
    frame.color_primaries, frame.colorspace, frame.color_range = 9, 9, 1
    return frame


@kind
def interlaced(clip: Clip, rng: Draw, folder: Path) -> Made:
    """Television: each frame holds two fields of 1/50 s; flagged or with the flags lost."""
    top, flagged = bool(rng.integers(0, 2)), bool(rng.integers(0, 2))
    pictures = []
    for k, now in enumerate(clip.pictures):
        later = clip.pictures[min(k + 1, len(clip.pictures) - 1)]
        between = cv2.addWeighted(now, 0.5, later, 0.5, 0)
        frame = now.copy()
        frame[int(top) :: 2] = between[int(top) :: 2]
        pictures.append(frame)
    name, codec = [("a.mpg", "mpeg2video"), ("a.mp4", "libx264"), ("a.ts", "libx264")][rng.integers(0, 3)]
    options = (
        {"flags": "+ildct+ilme"}
        if codec == "mpeg2video"
        else {"x264-params": f"interlaced=1:{'tff' if top else 'bff'}=1"}
    )

    video = Video(pictures, codec=codec, options=options if flagged else {})
    sound = "mp2" if name != "a.mp4" else "aac"
    path = write(folder / name, video, [Track(clip.sound[None], codec=sound)])
    return Made(path, whole(clip), {"top": top, "flagged": flagged, "name": name})


@kind
def two_faces(clip: Clip, rng: Draw, folder: Path) -> Made:
    """A speaker beside somebody who listens, larger or smaller, left or right."""
    high, wide = clip.pictures[0].shape[:2]
    scale = float(rng.choice([0.7, 1.0, 1.4]))
    size = 2 * round(wide * scale / 2), 2 * round(high * scale / 2)
    quiet = int(rng.integers(0, len(clip.pictures)))
    mirror = bool(rng.integers(0, 2))
    shake = rng.integers(-1, 2, (len(clip.pictures), 2)).cumsum(0) % 5
    left = bool(rng.integers(0, 2))
    tall = max(high, size[1])
    pictures = []
    for k, picture in enumerate(clip.pictures):
        other = _scaled(clip.pictures[quiet], *size)
        other = np.roll(other[:, ::-1] if mirror else other, tuple(shake[k]), (0, 1))
        sides = [_padded(picture, tall), _padded(other, tall)]
        pictures.append(np.ascontiguousarray(np.hstack(sides if left else sides[::-1])))
    path = write(folder / "a.mp4", Video(pictures), [Track(clip.sound[None])])
    params = {"scale": scale, "left": left, "mirror": mirror, "quiet": quiet}
    return Made(path, whole(clip, facts=tell("several_faces")), params)


def _padded(picture: np.ndarray, high: int) -> np.ndarray:
    above = (high - picture.shape[0]) // 2
    return np.pad(picture, ((above, high - picture.shape[0] - above), (0, 0), (0, 0)), mode="edge")


@kind
def still_photo(clip: Clip, rng: Draw, folder: Path) -> Made:
    """A photograph under a voice, perhaps with a slow zoom or a moving line below."""
    at, zoom, ticker = (
        int(rng.integers(0, len(clip.pictures))),
        float(rng.choice([0, 0, 0.05])),
        bool(rng.integers(0, 2)),
    )
    high, wide = clip.pictures[0].shape[:2]
    pictures = []
    for k in range(len(clip.pictures)):
        scale = 1 + zoom * k / len(clip.pictures)
        place = np.array([[scale, 0, wide / 2 * (1 - scale)], [0, scale, high / 2 * (1 - scale)]])
        picture = cv2.warpAffine(
            clip.pictures[at], place, (wide, high), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        if ticker:
            picture[-20:] = np.roll(
                rng.integers(0, 255, (20, wide, 1), np.uint8) if k == 0 else pictures[-1][-20:], 7, 1
            )
        pictures.append(picture)
    options = {"crf": str(rng.integers(16, 34))}
    path = write(folder / "a.mp4", Video(pictures, options=options), [Track(clip.sound[None])])
    held = np.arange(len(clip.pictures)) >= 4
    right = whole(clip, facts=tell("held_pictures"), held=held, lips=0)
    return Made(path, right, {"at": at, "zoom": zoom, "ticker": ticker, "options": options})


@kind
def slide_show(clip: Clip, rng: Draw, folder: Path) -> Made:
    """One to four pictures a second."""
    rate = int(rng.integers(1, 5))
    shown = [k * FPS // rate for k in range(int(clip.length_s * rate))]
    times = [Fraction(k, rate) for k in range(len(shown))]
    video = Video([clip.pictures[k] for k in shown], times, fps=Fraction(rate), options={"bf": "0"})
    path = write(folder / str(rng.choice(["a.mp4", "a.mkv"])), video, [Track(clip.sound[None])])
    last = (np.arange(len(clip.pictures)) % (FPS / rate)) >= 4
    return Made(path, whole(clip, facts=tell("held_pictures"), held=last, lips=0), {"rate": rate})


@kind
def freeze(clip: Clip, rng: Draw, folder: Path) -> Made:
    """The picture stands still from some time on, or has a gap in its stamps, while the voice goes on."""
    n = len(clip.pictures)
    first = int(rng.integers(15, n - 25))
    last = n if rng.random() < 0.5 else int(rng.integers(first + 15, n - 5))
    gap = bool(rng.integers(0, 2)) and last < n
    shown = (
        [k for k in range(n) if not first < k < last] if gap else [first if first <= k < last else k for k in range(n)]
    )
    times = [Fraction(k, FPS) for k in shown] if gap else []
    video = Video([clip.pictures[k] for k in shown], times, options={"bf": "0", "crf": str(rng.integers(16, 30))})
    path = write(folder / str(rng.choice(["a.mp4", "a.mkv"])), video, [Track(clip.sound[None])])
    held = (np.arange(n) >= first + 5) & (np.arange(n) < last)
    # At the beginning of a freeze codecs still sharpen the picture.
    right = whole(clip, facts=tell("held_pictures"), held=held, lips=0, found=0.75)
    return Made(path, right, {"first": first, "last": last, "gap": gap})


@kind
def few_pictures_a_second(clip: Clip, rng: Draw, folder: Path) -> Made:
    """12 to 30 pictures a second are no held pictures."""
    rate = Fraction(
        [Fraction(12), Fraction(15), Fraction(20), Fraction(24), Fraction(24_000, 1001), Fraction(30)][
            rng.integers(0, 6)
        ]
    )
    count = int(clip.length_s * rate)
    shown = [min(int((k / rate + Fraction(1, 2) / rate) * FPS), len(clip.pictures) - 1) for k in range(count)]
    times = [k / rate for k in range(count)]
    video = Video([clip.pictures[k] for k in shown], times, fps=rate, options={"bf": "0"})
    path = write(folder / "a.mkv", video, [Track(clip.sound[None])])
    length = round(count / rate * FPS)
    return Made(path, Right(np.arange(length)), {"rate": str(rate)})


@kind
def face_returns(clip: Clip, rng: Draw, folder: Path) -> Made:
    """The person leaves the picture and comes back, perhaps at another place, while the voice goes on."""
    high, wide = clip.pictures[0].shape[:2]
    first, gone = int(rng.integers(15, 25)), int(rng.integers(15, 25))
    by = int(rng.integers(-50, 51))
    wall = np.ascontiguousarray(np.tile(clip.pictures[0][: high // 4, : wide // 9], (4, 9, 1)))[:high, :wide]
    pictures = []
    for k, picture in enumerate(clip.pictures):
        if first <= k < first + gone:
            pictures.append(np.roll(wall, k, 1))
        else:
            pictures.append(picture if k < first else np.roll(picture, by, 1))
    path = write(folder / "a.mp4", Video(pictures), [Track(clip.sound[None])])
    right = Right(np.arange(len(pictures)), gone=(first, first + gone), lips=0.7)
    return Made(path, right, {"first": first, "gone": gone, "by": by})
