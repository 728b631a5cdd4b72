"""MFCC for the paper's student: 13 coefficients, 100 rows per second, from 16 kHz sound.

Rectangular window of 40 ms every 10 ms, pre-emphasis 0.97, power spectrum of 640 points divided by 640, 26 triangles on
the mel scale 2595 log10(1 + f / 700) with corners at whole bins, logarithm, orthonormal DCT-II, lifter 22 (1 + 11
sin(pi n / 22)), and the logarithm of the window's energy instead of the first coefficient: the defaults of
python_speech_features 0.6. Sound is in units of int16. Computed in double precision, because quiet bands are 60 dB and
more below loud ones.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from concord.frames import SAMPLE_RATE, SAMPLES_PER_FRAME

ROWS_PER_FRAME = 4
HOP = SAMPLES_PER_FRAME // ROWS_PER_FRAME
WINDOW = FFT = 640
FILTERS, COEFFICIENTS, LIFTER, PRE_EMPHASIS = 26, 13, 22, 0.97
SMALLEST = torch.finfo(torch.float64).eps  # replaces an energy of 0


class Mfcc(nn.Module):
    """Sound i2 [B, n] -> MFCC f4 [B, rows, 13]. No parameters."""

    triangles: torch.Tensor
    cosines: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        top = 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700)
        mel = torch.linspace(0, top, FILTERS + 2, dtype=torch.float64)
        corner = torch.floor((FFT + 1) * 700 * (10 ** (mel / 2595) - 1) / SAMPLE_RATE)
        k = torch.arange(FFT // 2 + 1, dtype=torch.float64)[:, None]
        left, middle, right = corner[:-2], corner[1:-1], corner[2:]
        rise, fall = (k - left) / (middle - left), (right - k) / (right - middle)
        triangles = torch.where(k < middle, rise, fall).clamp(min=0)
        n = torch.arange(COEFFICIENTS, dtype=torch.float64)
        m = torch.arange(FILTERS, dtype=torch.float64)[:, None]
        cosines = math.sqrt(2 / FILTERS) * torch.cos(math.pi * n * (m + 0.5) / FILTERS)
        lifter = 1 + LIFTER / 2 * torch.sin(math.pi * n / LIFTER)
        self.register_buffer("triangles", triangles, persistent=False)
        self.register_buffer("cosines", cosines * lifter, persistent=False)

    @torch.no_grad()
    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        """One row for each 10 ms from the start; the last rows have the remaining sound, then silence. As many rows as
        cover the sound: 1 + ceil((n - 640) / 160), at least one."""
        x = audio.double()
        x = torch.cat([x[:, :1], x[:, 1:] - PRE_EMPHASIS * x[:, :-1]], 1)
        rows = max(0, -(-(x.shape[1] - WINDOW) // HOP))
        x = F.pad(x, (0, rows * HOP + WINDOW - x.shape[1])).unfold(1, WINDOW, HOP)
        power = torch.fft.rfft(x, FFT).abs().square() / FFT
        energy = power.sum(-1).clamp(min=SMALLEST)
        bands = (power @ self.triangles).clamp(min=SMALLEST).log()
        out = bands @ self.cosines
        return torch.cat([energy.log()[..., None], out[..., 1:]], -1).float()

    def clips(self, audio: torch.Tensor, frames: torch.Tensor, wrap: bool) -> torch.Tensor:
        """MFCC f4 [B, 4 T, 13] of a padded batch of sound i2 [B, 640 T] whose clips last `frames` i8 [B].

        The last three rows of a clip reach beyond its end. They see silence there or, with `wrap` (as published), they
        are the first rows again. Values beyond a clip's rows have no meaning.
        """
        length = audio.shape[1]
        time = torch.arange(length, device=audio.device)
        x = self.forward(F.pad(audio * (time < frames[:, None] * SAMPLES_PER_FRAME), (0, WINDOW - HOP)))
        if wrap:
            whole = (frames * ROWS_PER_FRAME - (WINDOW // HOP - 1)).clamp(min=1)  # rows inside the clip
            row = torch.arange(x.shape[1], device=x.device) % whole[:, None]
            x = x.gather(1, row[..., None].expand_as(x))
        return x
