"""From face landmarks to a steady mouth crop, as the AV-HuBERT preprocessing does it.

Five stable points (eye corners and the base of the nose), averaged over the next 12 frames, are fitted to a mean face
by a similarity transform. The frame is warped into a 256 x 256 picture of that face, and 96 x 96 pixels around the
mouth are cut out. The same transforms place the lip landmarks. Points are (x, y) with pixel centres at whole numbers, y
down. The result equals the published code's within one grey level. Two differences: only the crop is warped, never the
whole picture, and gaps longer than 12 frames are not filled.

Sources: github.com/facebookresearch/av_hubert preparation/align_mouth.py (from a description; no code was copied). Mean
face: the constants below are from 20words_mean_face.npy of github.com/mpc001/auto_avsr, commit 182b6283, Apache-2.0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

FRAME = 256  # side of the mean-face picture, pixels
CROP = 96  # side of the mouth crop, pixels
WINDOW = 12  # frames averaged, looking ahead
MAX_GAP = 12  # frames without a face that are filled, 0.48 s
# Mean face, points 33, 36, 39, 42, 45 of the 68 (0-based): base of the nose, outer and inner corners of the eyes.
MEAN_STABLE = np.array(
    [
        [128.87017960974802, 137.30253355584708],
        [92.52245552947952, 94.36876013925871],
        [112.7724172413806, 94.94360869870115],
        [145.52511509158018, 94.5349986248377],
        [166.67710071343456, 93.56562295717796],
    ]
)
MEAN_MOUTH = np.array([129.31337322587925, 157.82299634918854])  # its points 48 to 67, averaged


def runs(mask: np.ndarray, parts: np.ndarray | None = None) -> list[tuple[int, int]]:
    """[start, stop) of each unbroken stretch of True in a bool [frames]; with `parts` [frames], each lies in one part."""
    edges = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))
    starts, stops = edges[:-1] == 1, edges[1:] == -1
    if parts is not None:
        inner = mask[1:] & mask[:-1] & (parts[1:] != parts[:-1])
        starts[1:] |= inner
        stops[:-1] |= inner
    return [
        (int(start), int(stop) + 1) for start, stop in zip(np.flatnonzero(starts), np.flatnonzero(stops), strict=True)
    ]


@dataclass(frozen=True)
class Gaps:
    """Frames that are filled: frame rows[i] becomes a mean of the frames before[i] and after[i], in which the latter has
    weight share[i]."""

    rows: np.ndarray
    before: np.ndarray
    after: np.ndarray
    share: np.ndarray

    @classmethod
    def of(cls, found: np.ndarray, parts: np.ndarray | None = None) -> "Gaps":
        """Short stretches without a detection, of a track found in bool [frames]: linear interpolation between two
        detections, copies before the first and after the last. Stretches longer than MAX_GAP frames are not filled.

        `parts` [frames] numbers the parts of a clip that differ in their pixels (another size of picture): a frame is
        filled only from its own part.
        """
        short = [(a, b) for a, b in runs(~found) if b - a <= MAX_GAP] if found.any() else []
        columns: list[list[np.ndarray]] = [[*[np.zeros(0, int)] * 3, np.zeros(0)]]
        for start, stop in short:
            rows = np.arange(start, stop)
            before, after = np.full(len(rows), start - 1), np.full(len(rows), stop)
            has_before, has_after = before >= 0, after < len(found)
            if parts is not None:
                has_before &= parts[before] == parts[rows]
                has_after &= parts[np.minimum(after, len(found) - 1)] == parts[rows]
            share = (rows - before) / (after - before)
            share[~has_before], share[~has_after] = 1.0, 0.0
            before, after = np.where(has_before, before, after), np.where(has_after, after, before)
            kept = has_before | has_after
            columns.append([one[kept] for one in (rows, before, after, share)])
        rows, before, after, share = (np.concatenate(column) for column in zip(*columns, strict=True))
        return cls(rows, before, after, share)

    def within(self, start: int, stop: int, origin: int) -> "Gaps":
        """The frames from start to stop, counted from `origin`."""
        some = (self.rows >= start) & (self.rows < stop)
        rows, before, after = (one[some] - origin for one in (self.rows, self.before, self.after))
        return Gaps(rows, before, after, self.share[some])

    def fill(self, values: np.ndarray) -> None:
        """Fill the frames of f8 [frames, ...] in place."""
        share = self.share.reshape(-1, *[1] * (values.ndim - 1))
        values[self.rows] = (1 - share) * values[self.before] + share * values[self.after]


def fill_gaps(values: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values [frames, ...] of a track found in bool [frames], with short gaps filled, f8; and which frames were
    filled, bool [frames]. Other frames without a detection are 0."""
    filled = np.where(found.reshape(-1, *[1] * (values.ndim - 1)), values, 0).astype(np.float64)
    gaps = Gaps.of(found)
    gaps.fill(filled)
    interpolated = np.zeros(len(found), bool)
    interpolated[gaps.rows] = True
    return filled, interpolated


def smooth(points: np.ndarray) -> np.ndarray:
    """Mean over frames i .. i+WINDOW-1 of [frames, ...] for each i with a whole window: [frames - WINDOW + 1, ...].

    A run shorter than WINDOW is averaged whole.
    """
    window = min(WINDOW, len(points))
    return np.lib.stride_tricks.sliding_window_view(points, window, axis=0).mean(axis=-1)


def similarities(source: np.ndarray, target: np.ndarray = MEAN_STABLE) -> np.ndarray:
    """Least-squares similarities f8 [n, 2, 3] from source [n, points, 2] to target [points, 2].

    Rotation, one scale and shift; no reflection. Umeyama 1991 (10.1109/34.88573). In two dimensions the solution has a
    closed form in complex numbers: w = a z + b with a = sum(conj(z - mean z) (w - mean w)) / sum |z - mean z|^2.
    """
    z = source[..., 0] + 1j * source[..., 1]
    w = target[..., 0] + 1j * target[..., 1]
    z_mean, w_mean = z.mean(axis=-1), w.mean(axis=-1)
    centred = z - z_mean[..., None]
    a = (centred.conj() * (w - w_mean)).sum(axis=-1) / (np.abs(centred) ** 2).sum(axis=-1)
    b = w_mean - a * z_mean
    return np.stack(
        [np.stack([a.real, -a.imag, b.real], axis=-1), np.stack([a.imag, a.real, b.imag], axis=-1)], axis=-2
    )


def transforms(stable: np.ndarray, changes: Sequence[int] = ()) -> np.ndarray:
    """Smoothed similarities [frames, 2, 3], frame to mean face, for one unbroken run of stable points [frames, 5, 2].

    Frame i uses the mean of frames i .. i+11; the last 11 frames reuse the last whole window's transform. `changes` are the
    frames from which on pictures have another size or orientation: a face hardly moves from one frame to the next, so
    its points in both tell how they are related, and later points are taken to where the earlier picture has them.
    """
    found = []
    for start, stop in pairwise([0, *changes, len(stable)]):
        points = stable[start : stop + WINDOW - 1].copy()
        for change in changes:
            if stop <= change < start + len(points):
                k = change - start
                points[k:] = apply(similarities(points[k][None], points[k - 1]), points[k:])
        here = similarities(smooth(points))
        found.append(np.concatenate([here, np.repeat(here[-1:], len(points) - len(here), axis=0)])[: stop - start])
    return np.concatenate(found)


def apply(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points [frames, points, 2], transformed by [frames, 2, 3]."""
    return points @ transform[:, :, :2].swapaxes(1, 2) + transform[:, None, :, 2]


def corners(mouth: np.ndarray) -> np.ndarray:
    """Top left pixel (x, y), i8 [frames, 2], of the crop around the mean of the aligned mouth points [frames, 20, 2].

    The centre is kept 48 pixels from the border, then rounded (halves to even).
    """
    centre = np.clip(mouth.mean(axis=1), CROP / 2, FRAME - CROP / 2)
    return np.rint(centre).astype(np.int64) - CROP // 2


def to_source(transform: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """The map [frames, 2, 3] from pixels of the crop back to pixels of the frame."""
    linear = np.linalg.inv(transform[:, :, :2])
    shift = (linear @ (corner - transform[:, :, 2])[..., None])[..., 0]
    return np.concatenate([linear, shift[..., None]], axis=-1)


def extent(source: np.ndarray) -> np.ndarray:
    """Pixels of the frame that the crops read: (left, top, right, bottom), right and bottom excluded, i8 [frames,
    4]."""
    ends = np.array([[0, 0], [CROP - 1, 0], [0, CROP - 1], [CROP - 1, CROP - 1]], np.float64)
    quads = apply(source, np.broadcast_to(ends, (len(source), 4, 2)))
    low, high = np.floor(quads.min(axis=1)).astype(np.int64), np.floor(quads.max(axis=1)).astype(np.int64)
    return np.concatenate([low - 1, high + 3], axis=1)


def crop(
    image: np.ndarray, source: np.ndarray, origin: tuple[int, int] = (0, 0), needed: np.ndarray | None = None
) -> np.ndarray:
    """One mouth crop u1 [96, 96] (grey) through source [2, 3], out of an RGB image u1 [height, width, 3].

    The image may be a part of the frame that begins at pixel `origin` (x, y) and covers the extent() of the crop
    (`needed`, if the caller has it already); the result is the same to the bit. Bilinear in floating point, 0 outside,
    truncated, then grey, in the order of the published script.
    """
    import cv2

    left, top, right, bottom = (extent(source[None])[0] if needed is None else needed).tolist()
    left, top = max(left, origin[0], 0), max(top, origin[1], 0)
    part = image[top - origin[1] : max(bottom - origin[1], 0), left - origin[0] : max(right - origin[0], 0)]
    if part.size == 0:  # the mouth lies outside the picture
        return np.zeros((CROP, CROP), np.uint8)
    shifted = source.copy()
    shifted[:, 2] -= (left, top)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(part.astype(np.float32), shifted, (CROP, CROP), flags=flags, borderMode=cv2.BORDER_CONSTANT)
    return cv2.cvtColor(warped.astype(np.uint8), cv2.COLOR_RGB2GRAY)
