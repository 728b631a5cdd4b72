"""The pictures for a student: the store's mouth crops or, for the paper's student if the store has them, whole faces.

Published weights for `talknet` were trained on whole faces. The choice is made once, when a run begins, and then
recorded: in its config and in every checkpoint's header. Evaluation and prediction follow it.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch.nn import functional as F

from student.data.augment import crop_place

SIDES = {"mouth": 96, "face": 112}  # pixels in the store, by array
OF_FACES = ("talknet",)  # students that use whole faces if there are any
CROP = 88  # pixels of a mouth crop in training
SMALLEST = 0.7  # smallest side of a random square of a face, as in the paper's augmentation
CROPPED = 0.5  # share of the windows that get one; a quarter in the paper


def choose(model: str, arrays: Collection[str]) -> str:
    """Name of the frame array that a student uses in a store with `arrays`."""
    return "face" if model in OF_FACES and "face" in arrays else "mouth"


def cut(name: str, pictures: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Pictures u1 [frames, side, side] of a window, cropped for training: u1 [frames, 88, 88] of mouths, [frames, 112,
    112] of faces. With `rng` the crop has a random position, the same for the whole window; a face's square also has a
    random size and is enlarged again.
    """
    if name == "mouth":
        margin = SIDES[name] - CROP
        y, x = crop_place(rng, margin) if rng else (margin // 2, margin // 2)
        return pictures[:, y : y + CROP, x : x + CROP]
    if rng is None or rng.random() >= CROPPED:
        return pictures
    side = int(SIDES[name] * rng.uniform(SMALLEST, 1))
    y, x = crop_place(rng, SIDES[name] - side)
    square = torch.from_numpy(pictures[None, :, y : y + side, x : x + side]).float()
    large = F.interpolate(square, (SIDES[name], SIDES[name]), mode="bilinear", align_corners=False)
    return large[0].round().to(torch.uint8).numpy()
