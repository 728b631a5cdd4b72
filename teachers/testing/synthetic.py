"""Clips of synthetic media in plausible ranges, for trying a teacher without any file; their rows have no meaning."""

import numpy as np

from concord.frames import AUDIO_PRESENT, FACE_DETECTED, FPS, IN_USE, SAMPLES_PER_FRAME, VOICE_ACTIVE
from teachers.base import ClipMedia


def clip(frames: int, seed: int = 0, id: str = "clip") -> ClipMedia:
    """A clip with sound in bursts and a mouth, lips and a whole face that move with it; the same for the same seed."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames) / FPS
    opening = 0.5 + 0.5 * np.sin(2 * np.pi * (3 * t + rng.random()))  # 3 syllables per second
    noise = rng.normal(0, 3000, (frames, SAMPLES_PER_FRAME)) * opening[:, None]
    return ClipMedia(
        id=id,
        audio=np.clip(noise, -32768, 32767).astype(np.int16).reshape(-1),
        mouth=_picture(rng, 96, opening),
        lips=(rng.normal(0, 15, (40, 2)) * (0.8 + 0.2 * opening[:, None, None])).astype(np.float32),
        blendshapes=np.clip(rng.random(52) * opening[:, None], 0, 1).astype(np.float32),
        flags=np.full(frames, IN_USE | AUDIO_PRESENT | FACE_DETECTED | VOICE_ACTIVE, np.uint8),
        face=_picture(rng, 112, opening),
    )


def _picture(rng: np.random.Generator, side: int, opening: np.ndarray) -> np.ndarray:
    """u1 [frames, side, side]: one texture, brighter while the mouth is open."""
    texture = rng.normal(120, 25, (side, side)) + 40 * opening[:, None, None]
    return np.clip(texture, 0, 255).astype(np.uint8)
