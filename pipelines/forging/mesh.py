"""The face as a mesh: one frame's texture, warped to other points, and laid over a picture without a seam.

A mesh has the 468 points of the face and a ring around them, joined by the Delaunay triangles of the clip's mean face.
Each triangle is an affine map. How much of the texture is shown is a number at each point, so the transition has no
edge, and the texture's colours are moved to those of the picture under it, smoothly, before both are mixed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from teachers.face import align

# MediaPipe's points that move with the head alone: corners of the eyes, bridge and base of the nose, forehead, temples.
RIGID = np.array([33, 133, 362, 263, 168, 6, 197, 195, 5, 2, 98, 327, 10, 151, 127, 356])
# And the outline of the face, from the forehead over the picture's right and the chin.
OVAL = np.array(
    [
        *[10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377],
        *[152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109],
    ]
)
CHIN = OVAL[9:28]  # of these, from ear to ear
EYES = np.array(
    [
        *[33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246],
        *[263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466],
    ]
)
UPPER, LOWER = 13, 14  # middles of the inner lips
CORNERS = np.array([61, 291])
RING = 1.45  # how far the ring is from the middle of the face, the outline being at 1
SOFT = 0.02  # of the face's height: blur of the transition
COLOUR = 0.12  # of the face's height: over which colours are compared
LEAST_AREA = 0.05  # pixels: smaller triangles are not drawn


@dataclass(frozen=True)
class Face:
    """The face of one clip, for all of its frames. `points` f4 [frames, 468, 2], pixels."""

    points: np.ndarray

    @cached_property
    def mean(self) -> np.ndarray:
        """f8 [468, 2]: the clip's mean face, its scale and position those of `align.MEAN_STABLE`."""
        stable = self.points[:, [2, 33, 133, 362, 263]].mean(0)
        first = align.similarities(stable[None])[0]
        start = self.points.mean(0) @ first[:, :2].T + first[:, 2]
        found: np.ndarray = align.apply(align.similarities(self.points[:, RIGID], start[RIGID]), self.points).mean(0)
        return found

    @cached_property
    def to_mean(self) -> np.ndarray:
        """f8 [frames, 2, 3]: from pixels of each frame to the mean face, by what moves with the head alone."""
        return align.similarities(self.points[:, RIGID], self.mean[RIGID])

    @cached_property
    def aligned(self) -> np.ndarray:
        """f8 [frames, 468, 2]: the points in the place of the mean face."""
        return align.apply(self.to_mean, self.points)

    @cached_property
    def triangles(self) -> np.ndarray:
        """int [triangles, 3] of the 468 points and the ring's."""
        from scipy.spatial import Delaunay

        return np.asarray(Delaunay(with_ring(self.mean)).simplices)

    @cached_property
    def opening(self) -> np.ndarray:
        """f8 [frames]: how far the inner lips are apart, in units of the mean face."""
        return np.linalg.norm(self.aligned[:, LOWER] - self.aligned[:, UPPER], axis=1)

    def placed(self, shape: np.ndarray, frame: int) -> np.ndarray:
        """Points [468, 2] in the place of the mean face, as pixels of a frame."""
        matrix = self.to_mean[frame]
        return (shape - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T

    def near(self, part: np.ndarray, full: float, none: float) -> np.ndarray:
        """f8 [468]: 1 for points within `full` of the points `part`, 0 beyond `none`, in units of the mean face."""
        away = np.linalg.norm(self.mean[:, None] - self.mean[None, part], axis=2).min(axis=1)
        return eased(1 - (away - full) / (none - full))


def eased(x: np.ndarray) -> np.ndarray:
    """From 0 to 1 with no edge at either end."""
    x = np.clip(x, 0, 1)
    return np.asarray(x * x * (3 - 2 * x))


def with_ring(points: np.ndarray) -> np.ndarray:
    """Points [468, 2] and the ring's [36, 2]."""
    middle = points[OVAL].mean(0)
    return np.concatenate([points, middle + RING * (points[OVAL] - middle)])


def warped(
    texture: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    triangles: np.ndarray,
    shown: np.ndarray,
    under: np.ndarray,
) -> np.ndarray:
    """`under` u1 [height, width, 3] with the texture, of the same size, on it: its points `source` [n, 2] come to `target` [n,
    2], and `shown` [n], 0 to 1, says how much of it is seen there."""
    left, top = np.floor(target.min(0)).astype(int).clip(0)
    right, bottom = np.minimum(np.ceil(target.max(0)).astype(int) + 1, under.shape[1::-1])
    if right - left < 2 or bottom - top < 2:
        return under
    place = _drawn(target - (left, top), triangles, (bottom - top, right - left))
    corners = np.concatenate([target - (left, top), np.ones((len(target), 1))], axis=1)[triangles]
    wanted = np.concatenate([source, shown[:, None]], axis=1)[triangles]
    good = np.abs(np.linalg.det(corners)) > LEAST_AREA
    maps = np.zeros((len(triangles) + 1, 3, 3))
    maps[1:][good] = np.linalg.solve(corners[good], wanted[good])
    y, x = np.mgrid[0 : bottom - top, 0 : right - left]
    at = np.einsum("kyx,yxkc->yxc", np.stack([x, y, np.ones_like(x)]), maps[place]).astype(np.float32)
    piece = cv2.remap(texture, at[..., 0], at[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    height = float(np.ptp(target[OVAL][:, 1]))
    alpha = np.where(place > 0, at[..., 2].clip(0, 1), 0).astype(np.float32)
    soft = np.where(place > 0, cv2.GaussianBlur(alpha, (0, 0), max(SOFT * height, 0.5)), 0)
    found = under.copy()
    found[top:bottom, left:right] = _mixed(piece, under[top:bottom, left:right], soft, max(COLOUR * height, 1.0))
    return found


def _drawn(points: np.ndarray, triangles: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """int [height, width]: 1 + the number of the triangle that covers a pixel, 0 for none."""
    place = np.zeros(shape, np.int32)
    a, b, c = (points[triangles[:, k]] for k in range(3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    order = np.flatnonzero(np.abs(area) > LEAST_AREA)
    sixteenths = np.rint(points * 16).astype(np.int32)
    for k in order[np.argsort(-np.abs(area[order]), kind="stable")]:
        cv2.fillConvexPoly(place, sixteenths[triangles[k]], int(k) + 1, shift=4)
    return place


def _mixed(piece: np.ndarray, under: np.ndarray, alpha: np.ndarray, reach: float) -> np.ndarray:
    """The piece over the picture, its colours moved to the picture's as they differ where both are seen."""
    weight = alpha * (1 - alpha)
    there = np.maximum(cv2.GaussianBlur(weight, (0, 0), reach), 1e-4)
    apart = under.astype(np.float32) - piece
    moved = np.dstack([cv2.GaussianBlur(apart[..., k] * weight, (0, 0), reach) / there for k in range(3)])
    mixed = under + alpha[..., None] * (piece + moved - under)
    return np.asarray(np.clip(np.rint(mixed), 0, 255), np.uint8)
