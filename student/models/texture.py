"""How the mouth is drawn and how the drawing changes in time: a branch that looks for redrawn mouths and hears nothing.

Fixed filters measure each frame: four bands of spatial detail (differences of Gaussians, from the finest detail to shapes
of a tenth of the crop), each as it is, in its change from one frame to the next, and in the change of that change. What
counts is their energy in 5 x 5 cells, averaged over two thirds of a second, and how much that energy varies meanwhile.
The level of a band, which a camera or a codec sets for the whole picture, is kept apart from its distribution over the
cells, where a redrawn mouth differs from the skin around it. A small network turns the measures into one logit a frame.

Only the network has parameters. Frames outside the mask are not measured; frames near the ends of a clip see a shorter
average. With `causal` only earlier frames count.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import nn
from torch.nn import functional as F

SIDE = 80  # pixels: the middle of the crop
CELLS = 5  # a side
BANDS = 4
ORDERS = 3  # a band, its first and its second difference in time
REACH = 8  # frames on each side that are averaged
MEASURES = BANDS * ORDERS * (CELLS * CELLS + 1) * 2  # numbers a frame
DROPOUTS = 8  # of each window in training
FLOOR = 1e-4  # of an energy; pictures have the deviation 1
SCALE = 1.0, 3.0, 0.3, 0.5  # about the deviations of cells and levels, of energies and of their variation


class Texture(nn.Module):
    """forward(mouth u1 [B, T, 88 or 96, same], mask bool [B, T]) -> frame logits f4 [B, T] (positive = redrawn) and clip
    logits f4 [B], their mean over the mask."""

    def __init__(self, width: int, dropout: float = 0.3, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(MEASURES, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 1)
        )

    def forward(self, mouth: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        frames = self.head(self._measures(mouth, mask))
        return frames[..., 0], _mean(frames, mask)[:, 0]

    def taught(self, mouth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The logits f4 [DROPOUTS, B] that training sees: of the mean measures of a window. Learned from single frames the
        network finds fewer of the forgeries that it has not met (docs/unseen.md)."""
        return self.of_means(_mean(self._measures(mouth, mask), mask))

    def of_means(self, means: torch.Tensor) -> torch.Tensor:
        """The logits f4 [DROPOUTS, B] of mean measures f4 [B, MEASURES], each row with a dropout of its own: less noise, for
        next to no time (Inoue 2019, "Multi-sample dropout", arXiv 1905.09788)."""
        logits: torch.Tensor = self.head(means.expand(DROPOUTS, -1, -1))
        return logits[..., 0]

    def _measures(self, mouth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        kind = mouth.device.type
        # small differences of large numbers: half precision would lose them
        exact = torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
        with torch.no_grad(), exact:
            return measures(mouth, mask, self.causal)


def _mean(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean [B, K] of x [B, T, K] over the mask [B, T]."""
    use = mask.to(x.dtype)[..., None]
    return (x * use).sum(1) / use.sum(1).clamp(min=1)


def measures(mouth: torch.Tensor, mask: torch.Tensor, causal: bool = False) -> torch.Tensor:
    """The measures of each frame, f4 [B, T, MEASURES], of mouth u1 [B, T, 88 or 96, same] where mask bool [B, T] is on."""
    energy, known = energies(mouth, mask, causal)
    both = torch.stack([energy, energy.square()], -1).flatten(3)
    mean, square = averaged(both, known, causal).unflatten(3, (-1, 2)).unbind(-1)
    varying = (square - mean.square()).clamp(min=0) / (mean + FLOOR).square()
    level, varied = (mean + FLOOR).log(), (varying + 0.01).log() / 2
    parts = []
    for x, (cells, whole) in ((level, SCALE[:2]), (varied, SCALE[2:])):
        middle = x.mean(-1, keepdim=True)
        centre = -4.0 if x is level else -0.5
        parts += [((x - middle) / cells).flatten(2), ((middle - centre) / whole).flatten(2)]
    return torch.cat(parts, -1).clamp(-6, 6)


def energies(mouth: torch.Tensor, mask: torch.Tensor, causal: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Energy f4 [B, T, ORDERS * BANDS, cells] of every frame, and which frames have it, f4 [B, T, ORDERS * BANDS, 1]: a
    difference needs its earlier frames. Pictures have mean 0 and deviation 1 over the frames that are averaged."""
    margin = (mouth.shape[-1] - SIDE) // 2
    x = mouth[..., margin : margin + SIDE, margin : margin + SIDE].float()
    moments = torch.stack([x.mean((-2, -1)), x.square().mean((-2, -1))], -1)[:, :, None]
    mean, square = averaged(moments, mask[..., None, None].to(x.dtype), causal)[:, :, 0].unbind(-1)
    spread = (square - mean.square()).clamp(min=0).sqrt() + 4.0
    x = (x - mean[..., None, None]) / spread[..., None, None]
    found, known = [], []
    for band in _bands(x):
        side = band.shape[-1]
        seen = mask
        for order in range(ORDERS):
            if order:
                band = F.pad(band[:, 1:] - band[:, :-1], (0, 0, 0, 0, 1, 0))
                seen = F.pad(seen[:, 1:] & seen[:, :-1], (1, 0))
            found.append(_pooled(band.square(), side // CELLS).flatten(2))
            known.append(seen)
    return torch.stack(found, 2), torch.stack(known, 2)[..., None].to(x.dtype)


def averaged(x: torch.Tensor, known: torch.Tensor, causal: bool) -> torch.Tensor:
    """Mean f4 [B, T, N, K] of x over REACH frames on each side (causal: over twice as many before), where it is known [B,
    T, N, 1]; 0 where nothing is."""
    b, t, n, k = x.shape
    sides = (2 * REACH, 0) if causal else (REACH, REACH)
    both = torch.cat([x * known, known], -1).flatten(2).transpose(1, 2)
    near = F.avg_pool1d(F.pad(both, sides), 2 * REACH + 1, stride=1).transpose(1, 2).view(b, t, n, k + 1)
    return near[..., :-1] / near[..., -1:].clamp(min=0.5 / (2 * REACH + 1))


def _bands(x: torch.Tensor) -> list[torch.Tensor]:
    """Four bands of pictures f4 [N, 80, 80], from fine to coarse, the later ones at half and at a quarter of the size."""
    fine, near = _smoothed(x, 0.7), _smoothed(x, 1.4)
    half = _pooled(near, 2)
    wide = _smoothed(half, 1.2)
    quarter = _pooled(wide, 2)
    return [x - fine, fine - near, half - wide, quarter - _smoothed(quarter, 1.2)]


def _smoothed(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Pictures [..., side, side] under a Gaussian; the edges are repeated. By products of matrices, which are faster here
    than convolutions of one channel."""
    side = x.shape[-1]
    place = torch.arange(side, device=x.device, dtype=x.dtype)
    reach = math.ceil(3 * sigma)
    outside = torch.arange(-reach, side + reach, device=x.device, dtype=x.dtype)
    weight = torch.exp(-(place[:, None] - outside).square() / (2 * sigma**2))
    weight = weight * (weight > 1e-12)  # subnormal numbers would make the products several times as slow
    nearest = torch.eye(side, device=x.device, dtype=x.dtype)[outside.clamp(0, side - 1).long()]
    line = (weight / weight.sum(1, keepdim=True)) @ nearest
    return line @ x @ line.T


def _pooled(x: torch.Tensor, by: int) -> torch.Tensor:
    """Means over squares of `by` pixels."""
    line = torch.eye(x.shape[-1] // by, device=x.device, dtype=x.dtype).repeat_interleave(by, 1) / by
    return line @ x @ line.T
