"""Layers of the `lite` student: convolutions over time, log-mel energies, local contrast, and the temporal stack of both
encoders."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from concord.frames import SAMPLE_RATE, SAMPLES_PER_FRAME

if TYPE_CHECKING:
    from student.models.lite import LiteConfig

MEL_PER_FRAME = 4  # 10 ms hop
HOP = SAMPLES_PER_FRAME // MEL_PER_FRAME
MEL_WINDOW = 400  # 25 ms


class Conv(nn.Conv1d):
    """A convolution over time that keeps the length (divided by the stride); causal: it sees no later rows."""

    def __init__(
        self, channels: int, out: int, size: int, stride: int = 1, causal: bool = False, bias: bool = True
    ) -> None:
        # the last row of a stride is the present
        self.before = size - stride if causal else 0
        super().__init__(channels, out, size, stride, padding=0 if causal else (size - stride) // 2, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(x, (self.before, 0)) if self.before else x)


class LogMel(nn.Module):
    """Logarithm of mel energies, 4 rows per frame, by matrix products only (exports to any runtime). No parameters.

    Mel scale of HTK, 2595 log10(1 + f / 700). The weights of each triangle sum to 1, so a band is a mean over its bins (equal
    area, as in Slaney's "Auditory Toolbox" 1998).
    """

    basis: torch.Tensor
    mel: torch.Tensor

    def __init__(self, mels: int, causal: bool = False) -> None:
        super().__init__()
        side = (MEL_WINDOW - HOP) // 2  # row m is centred on its 10 ms or, if causal, ends with them
        self.sides = (2 * side, 0) if causal else (side, side)
        n = torch.arange(MEL_WINDOW, dtype=torch.float64)
        k = torch.arange(MEL_WINDOW // 2 + 1, dtype=torch.float64)
        window = 0.5 - 0.5 * torch.cos(2 * math.pi * (n + 0.5) / MEL_WINDOW)
        angle = 2 * math.pi * n[:, None] * k[None, :] / MEL_WINDOW
        basis = torch.cat([torch.cos(angle), torch.sin(angle)], 1) * window[:, None]
        top = 2595 * math.log10(1 + SAMPLE_RATE / 2 / 700)
        edges = 700 * (10 ** (torch.linspace(0, top, mels + 2, dtype=torch.float64) / 2595) - 1)
        hertz = k * SAMPLE_RATE / MEL_WINDOW
        rise = (hertz[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
        fall = (edges[None, 2:] - hertz[:, None]) / (edges[2:] - edges[1:-1])
        mel = torch.minimum(rise, fall).clamp(min=0)
        self.register_buffer("basis", basis.float(), persistent=False)
        self.register_buffer("mel", (mel / mel.sum(0).clamp(min=1e-3)).float(), persistent=False)

    @torch.no_grad()
    def forward(self, audio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """audio i2 [B, 640 T], mask [B, T] -> f4 [B, 4 T, mels], with about zero mean and unit deviation on speech."""
        x = audio.float() / 32768 * mask.repeat_interleave(SAMPLES_PER_FRAME, 1)
        rows = F.pad(x, self.sides).unfold(1, MEL_WINDOW, HOP)
        real, imaginary = (rows @ self.basis).chunk(2, -1)
        energy = (real.square() + imaginary.square()) @ self.mel
        return ((energy + 1e-5).log() + 5.0) / 4.0


class LocalContrast(nn.Module):
    """The difference of a frame from its neighbourhood: x minus the mean of `reach` frames on each side (causal: of
    twice as many before it), then a layer norm.

    It removes what is constant (face, voice, room, camera) and keeps what moves. Without it all embeddings are almost
    equal at first, and the contrastive term has no gradient. [B, T, width] -> same; the mean is over rows inside the
    mask.
    """

    def __init__(self, width: int, reach: int, causal: bool) -> None:
        super().__init__()
        self.reach = reach
        self.sides = (2 * reach, 0) if causal else (reach, reach)
        # one zero frame more in the mean: otherwise the first frame minus itself would leave only rounding errors
        self.prior = float(causal) / (2 * reach + 1)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        keep = mask[..., None].to(x.dtype)
        size = 2 * self.reach + 1
        both = torch.cat([x * keep, keep], -1).transpose(1, 2)
        near = F.avg_pool1d(F.pad(both, self.sides), size, stride=1).transpose(1, 2)
        return self.norm(x - near[..., :-1] / (near[..., -1:] + self.prior).clamp(min=0.5 / size)) * keep


class Temporal(nn.Module):
    """Residual convolutions over 5 frames, then unit-length rows: [B, T, width] -> [B, T, width]."""

    def __init__(self, c: LiteConfig) -> None:
        super().__init__()
        self.contrast = LocalContrast(c.width, c.reach, c.causal)
        self.norms = nn.ModuleList([nn.LayerNorm(c.width) for _ in range(c.temporal_layers)])
        self.convs = nn.ModuleList([Conv(c.width, c.width, 5, causal=c.causal) for _ in range(c.temporal_layers)])
        self.dropout = nn.Dropout(c.dropout)
        self.out_norm = nn.LayerNorm(c.width)
        self.out = nn.Linear(c.width, c.width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.contrast(x, mask)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = F.relu(norm(x)) * mask[..., None]
            x = x + self.dropout(conv(y.transpose(1, 2)).transpose(1, 2))
        return F.normalize(self.out(self.out_norm(x)).float(), dim=-1, eps=1e-6)
