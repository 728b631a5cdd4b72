"""What a training window may look and sound like without saying anything else: crop, mirror, light, patches; level and noise.

Each function is of its input and a generator alone, applies to a whole window (a clip keeps its camera and microphone), and to
real and mismatched windows alike. Lips move as before: labels stay true.
"""

from __future__ import annotations

import numpy as np

from store.layout import SAMPLES_PER_FRAME


def crop_place(rng: np.random.Generator, margin: int) -> tuple[int, int]:
    """Row and column of the crop, each from 0 to `margin` pixels."""
    y, x = rng.integers(0, margin + 1, 2)
    return int(y), int(x)


def augment_mouth(mouth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror, gamma and contrast, and sometimes a grey patch that stays for the window: u1 [frames, height, width], same."""
    if rng.random() < 0.5:
        mouth = mouth[:, :, ::-1]
    gamma, contrast, light = np.exp(rng.uniform(-0.4, 0.4)), rng.uniform(0.6, 1.2), rng.uniform(-25, 25)
    level = np.arange(256) / 255
    curve = np.clip((255 * level**gamma - 128) * contrast + 128 + light, 0, 255).astype(np.uint8)
    mouth = curve[mouth]
    if rng.random() < 0.3:
        height, width = mouth.shape[1:]
        h, w = rng.integers(height // 8, height // 3, 2)
        y, x = rng.integers(0, height - h), rng.integers(0, width - w)
        mouth[:, y : y + h, x : x + w] = rng.integers(40, 200)
    return mouth


def augment_sound(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Level between -12 and +6 dB and, half of the time, noise 5 to 40 dB below the speech: i2 [640 * frames], same.

    The noise is white or falls by 6 dB an octave; its level refers to the louder half of the window's frames, so that a window
    full of pauses does not drown.
    """
    x = audio.astype(np.float32) * np.float32(10 ** (rng.uniform(-12, 6) / 20))
    if rng.random() < 0.5:
        frames = x.reshape(-1, SAMPLES_PER_FRAME)
        power = np.sort(np.square(frames).mean(1))[len(frames) // 2 :].mean()
        noise = rng.standard_normal(len(x), np.float32)
        if rng.random() < 0.5:
            noise = _brown(noise)
        snr = rng.uniform(5, 40)
        x = x + noise * np.float32(np.sqrt(power / (noise.std() ** 2 + 1e-9)) * 10 ** (-snr / 20))
    return np.clip(np.rint(x), -32768, 32767).astype(np.int16)


def _brown(noise: np.ndarray) -> np.ndarray:
    """White noise through a leaky integrator (corner about 130 Hz)."""
    from scipy.signal import lfilter

    return lfilter([1.0], [1.0, -0.95], noise).astype(np.float32)
