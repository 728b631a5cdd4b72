"""The input of AV-HuBERT: filterbanks of the sound, and mouth crops, both at 25 rows a second, as its own data set
makes them.

Sound: log energies of 26 mel bands at 100 Hz (python_speech_features 0.6 with its defaults: rectangular window, samples
in int16 scale), four neighbours stacked to 104 values, cut or filled up with zeros to the picture's frames, each row
normalised. A last row that is only partly filled is normalised together with its zeros, because the published models
were trained that way; every clip's last row has some. Picture: central crop, divided by 255, then standardised with a
fixed mean and deviation. Uses numpy only.
"""

from functools import cache

import numpy as np

from concord.frames import SAMPLE_RATE

WINDOW = 400  # samples, 25 ms
STEP = 160  # samples, 10 ms
FFT = 512
PRE_EMPHASIS = 0.97
BANDS = 26
STACK = 4  # rows at 100 Hz that make one at 25 Hz
EPSILON = float(np.finfo(np.float64).eps)  # replaces an energy of zero
LAYER_NORM_EPSILON = 1e-5


@cache
def filterbank() -> np.ndarray:
    """f8 [26, 257]: triangles between 28 points equally spaced on the mel scale from 0 to 8000 Hz, each rounded to a
    bin."""
    highest = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    hertz = 700 * (10 ** (np.linspace(0, highest, BANDS + 2) / 2595) - 1)
    edges = np.floor((FFT + 1) * hertz / SAMPLE_RATE)
    left, peak, right = (edges[k : k + BANDS, None] for k in range(3))
    bins = np.arange(FFT // 2 + 1)
    rising, falling = (bins - left) / (peak - left), (right - bins) / (right - peak)
    return np.where((left <= bins) & (bins < peak), rising, np.where((peak <= bins) & (bins < right), falling, 0.0))


def log_filterbank(samples: np.ndarray) -> np.ndarray:
    """f4 [rows at 100 Hz, 26] of i2 [samples] at 16 kHz; at least one row."""
    wave = samples.astype(np.float64)
    wave[1:] -= PRE_EMPHASIS * samples[:-1]
    rows = 1 + max(-(-(len(wave) - WINDOW) // STEP), 0)
    wave = np.concatenate([wave, np.zeros((rows - 1) * STEP + WINDOW - len(wave))])
    windows = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::STEP]
    power = np.abs(np.fft.rfft(windows, FFT)) ** 2 / FFT
    energy = power @ filterbank().T
    return np.log(np.where(energy == 0, EPSILON, energy)).astype(np.float32)


def stack(rows: np.ndarray) -> np.ndarray:
    """f4 [ceil(n / 4), 104] of f4 [n, 26]: four neighbours in time order; the last group is filled with zeros."""
    groups = -(-len(rows) // STACK)
    full = np.zeros((groups * STACK, rows.shape[1]), np.float32)
    full[: len(rows)] = rows
    return full.reshape(groups, -1)


def fit(rows: np.ndarray, frames: int) -> np.ndarray:
    """f4 [frames, n] of f4 [any, n]: the end is dropped, or rows of zeros are appended."""
    fitted = np.zeros((frames, rows.shape[1]), np.float32)
    fitted[: len(rows)] = rows[:frames]
    return fitted


def layer_norm(rows: np.ndarray) -> np.ndarray:
    """Each row with mean 0 and (biased) variance 1."""
    exact = rows.astype(np.float64)  # in float32 a constant row would give rounding noise times 316
    exact -= exact.mean(axis=1, keepdims=True)
    return (exact / np.sqrt((exact**2).mean(axis=1, keepdims=True) + LAYER_NORM_EPSILON)).astype(np.float32)


def sound(samples: np.ndarray, frames: int, normalize: bool = True) -> np.ndarray:
    """f4 [frames, 104] of i2 [samples]: the input of the audio front end."""
    rows = fit(stack(log_filterbank(samples)), frames)
    return layer_norm(rows) if normalize else rows


def picture(mouth: np.ndarray, size: int = 88, mean: float = 0.421, deviation: float = 0.165) -> np.ndarray:
    """f4 [frames, size, size] of u1 [frames, height, width], both at least `size`: the input of the visual front
    end."""
    top, left = ((length - size) // 2 for length in mouth.shape[1:])
    levels = ((np.arange(256) / 255 - mean) / deviation).astype(np.float32)
    return levels[mouth[:, top : top + size, left : left + size]]
