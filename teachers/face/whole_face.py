"""Whole faces: a steady picture of the face from a track of boxes, as the paper's student and TalkNet-ASD expect it.

A square around the face, smoothed over time, in grey, 112 x 112; it is not rotated. Size and position are
TalkNet-ASD's, with crop scale 0.40: half the longer side of a box, s, and its centre are each taken as a median over 13
frames. The square reaches 1.4 s to both sides, and from s above the centre to 1.8 s below, so it begins at the hair
line and includes chin and neck. Pixels outside the picture are grey 110. Differences: boxes come from MediaPipe's 478
points (hair line to chin, cheek to cheek) instead of S3FD; at the ends of a track the median sees mirrored frames, the
published one zeros; the square is cut at sub-pixel positions, and scaling down uses all its pixels, so that faces do
not shake. The whole square is kept, because the paper's loader shrinks whole videos of faces to 112 x 112.
TalkNet-ASD's demonstration cuts out its middle half (eyes to chin). Sources, from their description, no code copied:
github.com/TaoRuijie/TalkNet-ASD, commit 4b18de5f, demoTalkNet.py;
github.com/ljj898/CMDFD-Dataset-and-Deepfake-Detection, commit 41430070, dataLoader.py.
"""

import math

import numpy as np

from teachers.face import align

SIDE = 112  # pixels
MARGIN = 0.4  # in half boxes: the published crop scale
MEDIAN = 13  # frames, 0.5 s
OUTSIDE = 110  # grey level beyond the picture's border
LOOK = 32  # pixels, side of a look
LOOK_AT = np.array([[8.0, 10.0], [24.0, 10.0], [16.0, 23.0]])  # where eyes and mouth lie in it
SHOWN = slice(1, 29), slice(3, 29)  # the part that is compared: forehead to chin
ROOM = 1.25  # size of the piece kept around a face, in sides of its square: boxes are not smoothed yet and may move


def region(box: tuple[float, float, float, float]) -> tuple[float, float, float]:
    """Centre (x, y) of the square of one box (left, top, right, bottom) and half its side with ROOM, pixels."""
    left, top, right, bottom = box
    half = max(right - left, bottom - top) / 2
    return (left + right) / 2, (top + bottom) / 2 + MARGIN * half, ROOM * (1 + MARGIN) * half


def squares(boxes: np.ndarray) -> np.ndarray:
    """Left, top and side, f8 [frames, 3], of the squares of an unbroken run of boxes (left, top, right, bottom) [frames, 4]."""
    low, high = boxes[:, :2], boxes[:, 2:]
    half = (high - low).max(axis=1, keepdims=True) / 2
    steady = _median(np.concatenate([(low + high) / 2, half], axis=1))
    x, y, s = steady.T
    return np.stack([x - (1 + MARGIN) * s, y - s, 2 * (1 + MARGIN) * s], axis=1)


def extent(square: np.ndarray) -> np.ndarray:
    """Pixels of the frame that the crops read: (left, top, right, bottom), right and bottom excluded, i8 [frames,
    4]."""
    low, high = np.floor(square[:, :2]).astype(np.int64), np.floor(square[:, :2] + square[:, 2:]).astype(np.int64)
    return np.concatenate([low - 1, high + 3], axis=1)


def crop(image: np.ndarray, square: np.ndarray, origin: tuple[int, int], needed: np.ndarray) -> np.ndarray:
    """One face u1 [112, 112] (grey) of a square [3], out of an image u1 [height, width] (grey) or [height, width, 3] (RGB).

    The image may be a part of the frame that begins at pixel `origin` (x, y) and holds what extent() asks for
    (`needed`); the result is the same to the bit. A pixel is the mean of one bilinear sample for each pixel of the
    image that it covers.
    """
    import cv2

    left, top, right, bottom = needed.tolist()
    left, top = max(left, origin[0], 0), max(top, origin[1], 0)
    part = image[top - origin[1] : max(bottom - origin[1], 0), left - origin[0] : max(right - origin[0], 0)]
    if part.size == 0:  # the face lies outside the picture
        return np.full((SIDE, SIDE), OUTSIDE, np.uint8)
    grey = cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_RGB2GRAY) if part.ndim == 3 else part
    x, y, side = square.tolist()
    samples = max(1, math.ceil(side / SIDE))  # per pixel, across and down
    step = side / SIDE / samples
    source = np.array([[step, 0, x + step / 2 - left], [0, step, y + step / 2 - top]])
    fine = cv2.warpAffine(
        grey,
        source,
        (SIDE * samples, SIDE * samples),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=OUTSIDE,
    )
    return cv2.resize(fine, (SIDE, SIDE), interpolation=cv2.INTER_AREA) if samples > 1 else fine


def look(image: np.ndarray, eyes_and_mouth: np.ndarray) -> np.ndarray:
    """What a face looks like, to tell people apart: grey and upright, f4 [28, 26] of zero mean and unit length, from an image
    u1 [height, width, 3] with the eyes and the mouth at f4 [3, 2]."""
    import cv2

    reach = int(2 * np.ptp(eyes_and_mouth, axis=0).max()) + 2
    left, top = np.maximum(eyes_and_mouth[:2].mean(axis=0).astype(int) - reach, 0).tolist()
    part = image[top : top + 2 * reach + 1, left : left + 2 * reach + 1]
    if part.size == 0:  # the face lies outside the picture
        return np.zeros((LOOK, LOOK), np.float32)[SHOWN]
    step = max(1, reach // LOOK)  # a large face is made small first, which takes all its pixels
    size = max(part.shape[1] // step, 1), max(part.shape[0] // step, 1)
    small = cv2.resize(np.ascontiguousarray(part), size, interpolation=cv2.INTER_AREA)
    scale = np.array([size[0] / part.shape[1], size[1] / part.shape[0]])
    placed = align.similarities(((eyes_and_mouth - (left, top)) * scale)[None], LOOK_AT)[0]
    grey = cv2.cvtColor(cv2.warpAffine(small, placed, (LOOK, LOOK)), cv2.COLOR_RGB2GRAY)[SHOWN].astype(np.float32)
    centred = grey - grey.mean()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-6))


def _median(values: np.ndarray) -> np.ndarray:
    """Running median over MEDIAN frames of [frames, ...]; beyond the ends the frames are mirrored."""
    reach = MEDIAN // 2
    padded = np.pad(values, ((reach, reach), *[(0, 0)] * (values.ndim - 1)), mode="reflect")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, MEDIAN, axis=0), axis=-1)
