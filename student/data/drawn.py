"""Windows for the branch that sees how a mouth is drawn: real ones beside the pseudo-fakes made of them, and forged ones.

A real window and its pseudo-fake get the same draw of what happens to pictures after they are drawn (the camera's light, a
tremble of the crop, repeated frames, a lens, fewer pixels, noise, JPEG, H.264), so nothing of it tells them apart. It is
stronger than the augmentation of `student.data.augment`, which must keep what lips say: here a window may lose all fine
detail, because a detector that trusts fine detail calls every video forged that was compressed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from student.data import augment, degrade_picture, pseudo_fakes
from student.data.augment import Kind
from student.data.picture import CROP, cut
from student.data.pseudo_fakes import Window


class Drawn(NamedTuple):
    """One window: picture u1 [n, 88, 88], where a face is seen bool [n], 1 in forged frames, f4 [n], and whether it was made
    of the window before it."""

    picture: np.ndarray
    face: np.ndarray
    forged: np.ndarray
    made_of_last: bool = False


def of_real(
    window: Window, face: np.ndarray, other: Callable[[np.random.Generator], Window], rng: np.random.Generator
) -> list[Drawn]:
    """A real window and a pseudo-fake of it under one nuisance. `other` reads a window of another clip, for the kind that
    needs one."""
    kind = pseudo_fakes.draw_kind(rng)
    fake = pseudo_fakes.forge(window, other(rng) if pseudo_fakes.KINDS[kind].needs_other else window, rng, kind)
    seed = int(rng.integers(1 << 62))
    return [
        Drawn(_seen(window.mouth, seed), face, np.zeros(len(window), np.float32)),
        Drawn(_seen(fake.mouth, seed), face, fake.changed.astype(np.float32), made_of_last=True),
    ]


def of_forged(mouth: np.ndarray, face: np.ndarray, forged: np.ndarray, rng: np.random.Generator) -> Drawn:
    """A window u1 [n, 96, 96] of a forged clip; `forged` [n] says which frames are."""
    return Drawn(_seen(mouth, int(rng.integers(1 << 62))), face, forged.astype(np.float32))


def together(parts: Sequence[Drawn], frames: int) -> dict[str, np.ndarray]:
    """The windows of a batch padded to `frames`: drawn u1 [K, frames, 88, 88], drawn_mask bool and drawn_forged f4 [K,
    frames], and drawn_of i8 [K], the place of the window that a pseudo-fake was made of, -1 for others. K is at least 1:
    without windows there is one whose mask is off."""
    parts = list(parts) or [Drawn(np.zeros((0, CROP, CROP), np.uint8), np.zeros(0, bool), np.zeros(0, np.float32))]
    out = {
        "drawn": np.zeros((len(parts), frames, CROP, CROP), np.uint8),
        "drawn_mask": np.zeros((len(parts), frames), bool),
        "drawn_forged": np.zeros((len(parts), frames), np.float32),
    }
    for k, part in enumerate(parts):
        for values, own in zip(out.values(), part[:3], strict=True):
            values[k, : len(own)] = own
    of = [k - 1 if part.made_of_last else -1 for k, part in enumerate(parts)]
    return {**out, "drawn_of": np.array(of, np.int64)}


def _seen(mouth: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return disturb(cut("mouth", mouth, rng), int(rng.integers(1 << 62)))


def disturb(picture: np.ndarray, seed: int) -> np.ndarray:
    """The kinds of NUISANCE, each in its share of windows: u1 [frames, side, side] to the same; the same for one seed."""
    return augment.mixed(picture, NUISANCE, np.random.default_rng(seed))


def tremble(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The crop moves by .1 to .8 pixels, smoothly, as one that follows landmarks does."""
    import cv2

    frames, height, width = picture.shape
    by = rng.normal(size=(frames + 2, 2)) * rng.uniform(0.1, 0.8)
    by = (by[:-2] + by[1:-1] + by[2:]) / 3
    out = np.empty_like(picture)
    for frame, (x, y), moved in zip(picture, by, out, strict=True):
        matrix = np.array([[1, 0, x], [0, 1, y]])
        cv2.warpAffine(frame, matrix, (width, height), moved, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101)
    return out


def repeated(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """5 to 35 % of the frames show the one before, as after a change of the frame rate."""
    again = rng.random(len(picture)) < rng.uniform(0.05, 0.35)
    again[:1] = False
    shown = np.maximum.accumulate(np.where(again, 0, np.arange(len(picture))))
    return picture[shown]


def blur(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return degrade_picture.blur(picture, rng.uniform(0.4, 2))


def low_resolution(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return degrade_picture.low_resolution(picture, rng.uniform(0.25, 1))


def sensor_noise(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return degrade_picture.sensor_noise(picture, float(np.exp(rng.uniform(0, np.log(12)))), rng)


def jpeg(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return degrade_picture.jpeg(picture, int(rng.integers(15, 80)))


def h264(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return degrade_picture.h264(picture, int(rng.integers(20, 40)), "veryfast")


NUISANCE = {
    "mirror": Kind(0.5, augment.mirror),
    "tremble": Kind(0.5, tremble, "cv2"),
    "repeated": Kind(0.3, repeated),
    "blur": Kind(0.3, blur, "cv2"),
    "low resolution": Kind(0.65, low_resolution, "cv2"),
    "sensor noise": Kind(0.35, sensor_noise),
    "light": Kind(1.0, augment.light, "cv2"),
    "JPEG": Kind(0.3, jpeg, "cv2"),
    "H.264": Kind(0.25, h264, "libx264"),
}
