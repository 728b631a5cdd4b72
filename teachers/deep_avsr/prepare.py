"""The inputs of the two networks: spectra of the sound and pictures of the mouth, on the common clock.

Sound, as in both published pipelines: the clip is divided by its largest absolute value, then by its root mean square.
The rows are magnitudes of a short-time Fourier transform with a Hamming window of 640 samples every 160, without
padding. A clip of n frames has 4 n - 3 such rows; the two pipelines fill the three missing ones differently. The
paper's authors repeat the clip's first rows at the end. This gives the last frame sound of another time, and frame k
the samples 640 k to 640 k + 1120. deep_avsr, with which the weights were trained, puts one row of zeros before and two
after. Frame k then has the samples 640 k - 160 to 640 k + 960, centred within 5 ms of the frame (the authors': 15 ms
late). This module follows deep_avsr. deep_avsr also pads short clips with zeros to 145 frames. That is left out here,
as by the paper's authors: it doubles the work for rows that are not used.

Pictures: deep_avsr takes the central half of a face track of 224 pixels. The aligned mouth crop of 96 pixels, enlarged
to 112, is close to that but not equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

HOP = 160  # samples between rows
WINDOW = 640  # samples that a row sees
LEAD = 1  # rows of zeros before the first
ROWS_PER_FRAME = 4
SIDE = 112  # pixels
# periodic and divided by its sum, as in scipy.signal.stft(window="hamming")
TAPER = 0.54 - 0.46 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
TAPER /= TAPER.sum()


def spectra(audio: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Magnitudes f4 [4 * (stop - start), 321] for frames [start, stop) of a whole clip's sound i2 [640 * frames].

    The level is that of the whole clip, whichever frames are requested. Silence gives zeros; the published division
    gives NaN.
    """
    rows = np.zeros((ROWS_PER_FRAME * (stop - start), WINDOW // 2 + 1), np.float32)
    mean_square = np.einsum("i,i->", audio, audio, dtype=np.float64) / max(len(audio), 1)
    if mean_square == 0:
        return rows
    first = max(ROWS_PER_FRAME * start - LEAD, 0)
    last = min(ROWS_PER_FRAME * stop - LEAD, (len(audio) - WINDOW) // HOP + 1)
    samples = audio[first * HOP : (last - 1) * HOP + WINDOW] / np.sqrt(
        mean_square
    )  # dividing by the peak first would cancel out
    windows = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    at = first + LEAD - ROWS_PER_FRAME * start
    rows[at : at + last - first] = np.abs(np.fft.rfft(windows * TAPER))
    return rows


def pictures(mouth: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """Grey pictures u1 [frames, height, width] as float tensor [frames, 112, 112] in 0..255 on the torch device.

    Larger pictures are cropped to their centre, smaller ones are enlarged bilinearly.
    """
    import torch
    from torch.nn.functional import interpolate

    top, left = (max(size - SIDE, 0) // 2 for size in mouth.shape[1:])
    x = torch.from_numpy(np.ascontiguousarray(mouth[:, top : top + SIDE, left : left + SIDE])).to(device).float()
    if x.shape[1:] != (SIDE, SIDE):
        x = interpolate(x[:, None], size=(SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
    return x
