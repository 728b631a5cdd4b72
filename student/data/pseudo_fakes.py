"""Forgeries made from windows of real pictures while a student trains, so that real clips alone teach it what a redrawn
mouth looks like.

A generator draws the mouth, or the whole face, anew: with fewer pixels than the rest, too smooth, from few examples, with
a mouth that trembles or belongs to another moment. Each kind of KINDS imitates one such fault by simple means. Most
windows keep their surroundings and get the redrawn mouth inside a feathered region around the lips, in the colours of the
rest; in some everything is redrawn. The sound is never touched, so a pseudo-fake says nothing about lips and voice.

The idea follows self-blended images (Shiohara and Yamasaki, CVPR 2022, arXiv 2204.08376): pseudo-fakes of one's own
pictures are harder than real forgeries and show no generator's habits. A new kind is one function and one line in KINDS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SIDE = 96  # pixels of a mouth crop
WHOLE = 0.25  # share in which everything is redrawn, where a kind allows it
PART = 0.2  # share in which only a stretch of the frames is forged
SHORTEST = 8  # frames of such a stretch
GROWTH = (1.1, 2.0), (1.2, 2.6)  # size of the region in sizes of the lips, across and down
FEATHER = (1.0, 7.0)  # pixels
COARSE = np.stack(np.meshgrid(np.arange(2, SIDE, 4), np.arange(2, SIDE, 4)), -1).astype(np.float32)
FINE = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1).astype(np.float32)


@dataclass(frozen=True)
class Window:
    """Frames of a real clip: mouth u1 [T, 96, 96] and lips f4 [T, 40, 2] in pixels of the crop (`in_crop`)."""

    mouth: np.ndarray
    lips: np.ndarray

    def __len__(self) -> int:
        return len(self.mouth)


@dataclass(frozen=True)
class PseudoFake:
    """A forged window: its pictures u1 [T, 96, 96], the frames that were changed, bool [T], and the kind's name."""

    mouth: np.ndarray
    changed: np.ndarray
    kind: str


@dataclass(frozen=True)
class Kind:
    """One way to forge: the function, which draws its own strength and returns pictures f4 [T, 96, 96]; whether
    everything may be redrawn; whether the new mouth takes over contrast as well as brightness from its surroundings; whether
    it needs another clip's window."""

    draw: Callable[[Window, Window, np.random.Generator], np.ndarray]
    may_be_whole: bool = True
    matches_contrast: bool = False
    needs_other: bool = False


def in_crop(lips: np.ndarray) -> np.ndarray:
    """Lips [T, 40, 2] of the store, around the mean mouth, in pixels of the crop, whose centre follows the mouth."""
    points = np.nan_to_num(
        np.asarray(lips, np.float32), posinf=SIDE, neginf=-SIDE
    )  # frames without a face may have none
    points = np.clip(points, -SIDE, SIDE)  # no lips are so far from the mean mouth
    return np.asarray(points - points.mean(1, keepdims=True) + SIDE / 2)


def draw_kind(rng: np.random.Generator) -> str:
    """A name out of KINDS, each as likely."""
    return list(KINDS)[int(rng.integers(len(KINDS)))]


def forge(window: Window, other: Window, rng: np.random.Generator, kind: str) -> PseudoFake:
    """A pseudo-fake of `window`, of a kind out of KINDS. `other` is a window of another clip, for kinds that need one; it may
    have another length. A function of its arguments only. ValueError for an unknown kind."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind of pseudo-fake {kind}; there are {', '.join(KINDS)}")
    how = KINDS[kind]
    new = how.draw(window, other, rng)
    old = window.mouth.astype(np.float32)
    if how.may_be_whole and rng.random() < WHOLE:
        share = np.ones_like(old)
    else:
        share = _region(window.lips, rng)
        new = _matched(new, old, share, how.matches_contrast)
    changed = _stretch(len(window), rng)
    share[~changed] = 0
    forged = np.clip(np.rint(old + share * (new - old)), 0, 255).astype(np.uint8)
    return PseudoFake(forged, changed, kind)


def _stretch(frames: int, rng: np.random.Generator) -> np.ndarray:
    """The frames that are forged, bool [frames]: all, or in a share PART of the windows a stretch."""
    changed = np.ones(frames, bool)
    if rng.random() < PART and frames > SHORTEST:
        size = int(rng.integers(SHORTEST, frames))
        first = int(rng.integers(frames - size + 1))
        changed[:first], changed[first + size :] = False, False
    return changed


def _region(lips: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How much of the forged mouth is seen, f4 [T, 96, 96] from 0 to 1: the grown hull of the lips, feathered."""
    import cv2

    across, down = (rng.uniform(*limits) for limits in GROWTH)
    sigma = float(rng.uniform(*FEATHER))
    centre = lips.mean(1, keepdims=True)
    hulls = centre + (lips - centre) * np.array([across, down], np.float32)
    out = np.zeros((len(lips), SIDE, SIDE), np.float32)
    for share, points in zip(out, hulls.astype(np.float32), strict=True):
        cv2.fillConvexPoly(share, cv2.convexHull(points).round().astype(np.int32), 1.0)
    return _blurred(out, sigma)


def _matched(new: np.ndarray, old: np.ndarray, share: np.ndarray, contrast: bool) -> np.ndarray:
    """The new pictures with the brightness, and if asked the contrast, that the old ones have around the region."""
    weight = _blurred((share > 0.05).astype(np.float32), 3.0) * (1 - share) + 1e-3
    total = weight.sum((1, 2), keepdims=True)
    mean_new, mean_old = ((x * weight).sum((1, 2), keepdims=True) / total for x in (new, old))
    if not contrast:
        return np.asarray(new + mean_old - mean_new)
    spread_new, spread_old = (
        np.sqrt(((x - mean) ** 2 * weight).sum((1, 2), keepdims=True) / total) + 2
        for x, mean in ((new, mean_new), (old, mean_old))
    )
    return np.asarray((new - mean_new) * np.clip(spread_old / spread_new, 0.5, 2) + mean_old)


# -- the kinds --------------------------------------------------------------------------------------------------------


def few_pixels(window: Window, other: Window, rng: np.random.Generator) -> np.ndarray:
    """Drawn at 22 to 59 pixels and enlarged, as generators of small pictures do."""
    import cv2

    side = int(rng.integers(22, 60))
    how = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
    small = (cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in window.mouth)
    return np.stack([cv2.resize(frame, (SIDE, SIDE), interpolation=how) for frame in small]).astype(np.float32)


def sharpened(window: Window, other: Window, rng: np.random.Generator) -> np.ndarray:
    """The same, with the edges raised again, as a network that restores faces does."""
    x = few_pixels(window, other, rng)
    return np.asarray(x + rng.uniform(0.3, 1.5) * (x - _blurred(x, float(rng.uniform(0.8, 2)))))


def few_components(window: Window, other: Window, rng: np.random.Generator) -> np.ndarray:
    """From the first 2 to 6 principal components of the window's own frames."""
    x = window.mouth.reshape(len(window), -1).astype(np.float32)
    mean = x.mean(0)
    u, size, v = np.linalg.svd(x - mean, full_matrices=False)
    size[int(rng.integers(2, 7)) :] = 0
    return np.asarray((u * size) @ v + mean).reshape(window.mouth.shape)


def like_lips(window: Window, other: Window, rng: np.random.Generator) -> np.ndarray:
    """Each frame the mean of 2 to 5 frames whose lips have a like shape, with or without itself."""
    points = window.lips.reshape(len(window), -1)
    gap = np.square(points[:, None] - points[None]).mean(-1)
    if rng.random() < 0.5:
        np.fill_diagonal(gap, gap.max())
    nearest = min(int(rng.integers(2, 6)), len(window))
    weight = np.exp(-gap / (np.sort(gap, 1)[:, nearest - 1 : nearest] + 1e-3))
    weight /= weight.sum(1, keepdims=True)
    return np.asarray(np.einsum("ts,shw->thw", weight, window.mouth.astype(np.float32)))


def smooth(window: Window, other: Window, rng: np.random.Generator) -> np.ndarray:
    """Smoothed by a Gaussian, or between edges only."""
    import cv2

    if rng.random() < 0.5:
        return _blurred(window.mouth.astype(np.float32), float(rng.uniform(0.5, 1.8)))
    spread = float(rng.uniform(8, 40))
    return np.stack([cv2.bilateralFilter(frame, 5, spread, 3) for frame in window.mouth]).astype(np.float32)


def still(window: Window, other: Window, rng: np.random.Generator) -> np.ndarray:
    """One frame, moved by the lips of all others."""
    frame = int(rng.integers(len(window)))
    reach = float(rng.uniform(4, 9))
    base = window.mouth[frame].astype(np.float32)
    return np.stack([_moved(base, _field(window.lips[frame], lips, reach)) for lips in window.lips])


def trembling(window: Window, other: Window, rng: np.random.Generator) -> np.ndarray:
    """Moved by .25 to 1.3 pixels, otherwise in each frame."""
    by = rng.normal(size=(len(window), 2)) * rng.uniform(0.25, 1.3)
    return np.stack([_moved(frame, by[k]) for k, frame in enumerate(window.mouth.astype(np.float32))])


def elastic(window: Window, other: Window, rng: np.random.Generator) -> np.ndarray:
    """Bent by a smooth field of .4 to 1.6 pixels, another in each frame."""
    import cv2

    spread, side = rng.uniform(0.4, 1.6), int(rng.integers(4, 9))
    fields = (rng.normal(size=(len(window), side, side, 2)) * spread).astype(np.float32)
    large = (cv2.resize(field, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for field in fields)
    return np.stack([_moved(frame, by) for frame, by in zip(window.mouth.astype(np.float32), large, strict=True)])


def other_moment(window: Window, other: Window, rng: np.random.Generator) -> np.ndarray:
    """The mouth of 3 to 8 frames before or after; reflected at the window's ends."""
    frames = np.arange(len(window)) + int(rng.integers(3, 9)) * (1 if rng.random() < 0.5 else -1)
    frames = np.abs(frames)
    last = len(window) - 1
    frames = np.clip(np.where(frames > last, 2 * last - frames, frames), 0, last)
    return window.mouth[frames].astype(np.float32)


def other_mouth(window: Window, other: Window, rng: np.random.Generator) -> np.ndarray:
    """The mouth of another clip, as wide as one's own."""
    import cv2

    scale = float(np.clip(_size(other.lips) / max(_size(window.lips), 1.0), 0.6, 1.6))
    out = []
    for k in range(len(window)):
        there = ((FINE - SIDE / 2) * scale + SIDE / 2).astype(np.float32)
        frame = other.mouth[k % len(other)].astype(np.float32)
        out.append(cv2.remap(frame, there[..., 0], there[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101))
    return np.stack(out)


KINDS = {
    "few pixels": Kind(few_pixels),
    "sharpened": Kind(sharpened),
    "few components": Kind(few_components),
    "like lips": Kind(like_lips),
    "smooth": Kind(smooth),
    "still": Kind(still),
    "trembling": Kind(trembling),
    "elastic": Kind(elastic),
    "other moment": Kind(other_moment),
    "other mouth": Kind(other_mouth, may_be_whole=False, matches_contrast=True, needs_other=True),
}


# -- tools ------------------------------------------------------------------------------------------------------------


def _blurred(pictures: np.ndarray, sigma: float) -> np.ndarray:
    import cv2

    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in pictures])


def _size(lips: np.ndarray) -> float:
    """Mean distance of the points from their centre, in pixels."""
    return float(np.sqrt(np.square(lips - lips.mean(1, keepdims=True)).sum(-1).mean()))


def _field(source: np.ndarray, target: np.ndarray, reach: float) -> np.ndarray:
    """Where each pixel comes from, relative to itself, f4 [96, 96, 2], so that what was at `source` [40, 2] appears at
    `target`; it fades `reach` pixels away from the points."""
    import cv2

    weight = np.exp(-np.square(COARSE[:, :, None] - target).sum(-1) / (2 * reach**2))
    field = (weight[..., None] * (source - target)).sum(2) / (weight.sum(2)[..., None] + 0.3)
    return np.asarray(cv2.resize(field.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR))


def _moved(frame: np.ndarray, by: np.ndarray) -> np.ndarray:
    """The frame f4 [96, 96] sampled at each pixel's place plus `by`, [2] or [96, 96, 2] in pixels."""
    import cv2

    at = (FINE + by).astype(np.float32)
    return np.asarray(cv2.remap(frame, at[..., 0], at[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101))
