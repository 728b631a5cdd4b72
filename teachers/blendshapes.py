"""The `blendshapes` teacher: MediaPipe's 52 expression scores, standardised within the clip.

Raw scores separate speakers better than they separate sounds (frame AUC on unseen speakers .69 raw, .88 standardised).
So each clip's own mean is subtracted and each score is divided by its own deviation.
"""

from typing import Any

import numpy as np

from concord.frames import FACE
from teachers.base import ClipMedia, TeacherError
from teachers.face.tracker import MODEL_SHA256, NUM_BLENDSHAPES

MIN_STD = 1e-4  # a score that varies less counts as constant and becomes 0 (float16 steps near 0.1 are 6e-5)


class Blendshapes:
    """f4 [frames, 52] in MediaPipe's order ("_neutral" first).

    Mean 0 and deviation 1 over the clip's frames with a face; other rows, and scores that do not vary, are 0.
    """

    name = "blendshapes"
    stream = "video"
    landmarks = True  # it reads points of the face, not pixels
    dim = NUM_BLENDSHAPES

    def embed(self, clips: list[ClipMedia]) -> list[np.ndarray]:
        rows = []
        for clip in clips:
            faced = (clip.flags & FACE) > 0
            scores = np.zeros((clip.num_frames, self.dim), np.float32)
            if faced.any():
                raw = clip.blendshapes[faced].astype(np.float64)
                std = raw.std(axis=0)
                scores[faced] = np.where(std > MIN_STD, (raw - raw.mean(axis=0)) / np.maximum(std, MIN_STD), 0)
            rows.append(scores)
        return rows

    def provenance(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "layer": None,
            "source": "face stage",
            "sha256": MODEL_SHA256,
            "options": {"standardised": "clip", "min_std": MIN_STD},
            "dim": self.dim,
            "licence": "Apache-2.0",
        }


def load(argument: str, device: str) -> Blendshapes:
    """Entry point `blendshapes`; takes no argument and does not use a device."""
    if argument:
        raise TeacherError(f"teacher 'blendshapes' takes no argument, got '{argument}'")
    return Blendshapes()
