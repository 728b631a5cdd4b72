"""The `lite` student: two small encoders of one modality each, and a head that sees only how well they agree.

Mouth crops go through a strided 2-D trunk whose first layer spans three frames (it sees motion), sound through a
log-mel front end and strided 1-D convolutions; both end in temporal convolutions and unit-length embeddings, 25 per
second. The head reads their cosines at small offsets in several groups of channels, so a decision cannot rest on a
face, a voice or a codec alone. Norms act within one frame, convolutions are padded at the ends of the clip, and rows
outside the mask are zeroed before each temporal layer. So a frame depends on its neighbourhood, never on the length of
the clip or on the rest of the batch. With `causal` only earlier frames count: a frame's embeddings and logit are final
as soon as the frame has arrived.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from concord.frames import SAMPLE_RATE, SAMPLES_PER_FRAME
from student.models.output import Output

MEL_PER_FRAME = 4  # 10 ms hop
HOP = SAMPLES_PER_FRAME // MEL_PER_FRAME
MEL_WINDOW = 400  # 25 ms
CROP = 88  # of the store's 96 pixels

LIMITS = {  # smallest and largest value of each size
    "width": (1, 4096), "temporal_layers": (0, 64), "reach": (0, 10_000), "mels": (1, 512), "groups": (1, 4096),
    "offsets": (0, 1000),
}  # fmt: skip


@dataclass(frozen=True)
class LiteConfig:
    """Sizes of the network; the benchmarks were run with the defaults."""

    width: int = 128  # embedding channels D
    trunk: tuple[int, ...] = (24, 48, 96, 128)  # channels at 22, 11, 6, 3 pixels
    temporal_layers: int = 3  # each spans 5 frames, in both encoders
    reach: int = 12  # frames on each side whose mean is subtracted: half a second
    mels: int = 64
    groups: int = 4  # of channels; the head sees a cosine for each
    offsets: int = 7  # largest offset in frames that the head compares, either way; 15 offsets with the default
    dropout: float = 0.1
    causal: bool = False  # for streams: nothing depends on later frames

    def __post_init__(self) -> None:
        """A header may contain anything: ValueError for values that are not numbers or exceed LIMITS."""
        trunk = tuple(self.trunk) if isinstance(self.trunk, tuple | list) else ()  # a list in JSON
        object.__setattr__(self, "trunk", trunk)
        if not 1 <= len(trunk) <= 12:
            raise ValueError("trunk must be a list of 1 to 12 numbers")
        sizes = {name: (getattr(self, name), limits) for name, limits in LIMITS.items()}
        sizes |= {f"trunk {k}": (channels, LIMITS["width"]) for k, channels in enumerate(trunk)}
        for name, (value, (least, most)) in sizes.items():
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name} must be an integer from {least} to {most}")
        if type(self.causal) is not bool or not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ValueError("causal must be true or false, and dropout must be from 0 to below 1")
        if self.width % self.groups:
            raise ValueError(f"width {self.width} must be a multiple of groups {self.groups}")

    def least_numbers(self) -> int:
        """Number of weights in the larger layers, a lower bound for the network."""
        side = 22
        for _ in self.trunk[1:]:
            side = (side + 1) // 2
        convolved = sum(9 * a * b for a, b in zip(self.trunk, self.trunk[1:], strict=False))
        projected = self.trunk[-1] * side * side * self.width
        heard = 5 * self.mels * self.width + 8 * self.width**2
        temporal = 2 * (5 * self.temporal_layers + 1) * self.width**2
        return convolved + projected + heard + temporal + 32 * (self.groups + 1) * (2 * self.offsets + 1)


class Lite(nn.Module):
    """See the module. forward(mouth, audio, mask) -> Output."""

    def __init__(self, config: LiteConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or LiteConfig()
        self.visual = VisualEncoder(c)
        self.audio = AudioEncoder(c)
        self.head = AgreementHead(c)
        self.log_scale = nn.Parameter(torch.tensor(math.log(8.0)))
        self.bias = nn.Parameter(torch.tensor(-3.0))  # most possible pairs do not belong together

    def forward(self, mouth: torch.Tensor, audio: torch.Tensor, mask: torch.Tensor | None = None) -> Output:
        """mouth u1 [B, T, 96, 96] (centre taken) or [B, T, 88, 88], audio i2 [B, 640 T], mask bool [B, T]: True for
        rows in use."""
        if mask is None:
            mask = torch.ones(mouth.shape[:2], dtype=torch.bool, device=mouth.device)
        return self.join(self.visual(mouth, mask), self.audio(audio, mask), mask)

    def join(self, v: torch.Tensor, a: torch.Tensor, mask: torch.Tensor) -> Output:
        """The output from the embeddings of both encoders, unit rows [B, T, width]."""
        frame_logits, clip_logits = self.head(v, a, mask)
        return Output(v, a, frame_logits, clip_logits, self.log_scale.exp(), self.bias)


def even(mouth: torch.Tensor) -> torch.Tensor:
    """Mouth crops u1 [..., 88 or 96, same] -> f4 [..., 88, 88] of mean 0 and about deviation 1 in each frame: light and
    contrast differ between clips. A deviation of 4 of 255 is flat."""
    margin = (mouth.shape[-1] - CROP) // 2
    x = mouth[..., margin : margin + CROP, margin : margin + CROP].float()
    x = x - x.mean((-2, -1), keepdim=True)
    return x / (x.square().mean((-2, -1), keepdim=True).sqrt() + 4.0)


class VisualEncoder(nn.Module):
    """mouth u1 [B, T, 88 or 96, same] -> unit rows [B, T, width]."""

    def __init__(self, c: LiteConfig) -> None:
        super().__init__()
        first, *rest = c.trunk
        # three frames as three channels: a 3 x 7 x 7 convolution with stride 1 x 4 x 4, in the fastest layout on CPUs
        layers: list[nn.Module] = [
            nn.Conv2d(3, first, 7, stride=4, padding=3, bias=False),
            nn.GroupNorm(1, first),
            nn.ReLU(),
        ]
        for channels in rest:
            layers += [
                nn.Conv2d(first, channels, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(1, channels),
                nn.ReLU(),
            ]
            first = channels
        self.trunk = nn.Sequential(*layers)
        self.causal = c.causal
        side = 22
        for _ in rest:
            side = (side + 1) // 2
        self.project = nn.Linear(first * side * side, c.width)
        self.temporal = Temporal(c)

    def forward(self, mouth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = even(mouth) * mask[..., None, None]
        near = F.pad(x, (0, 0, 0, 0, 2, 0) if self.causal else (0, 0, 0, 0, 1, 1))
        b, t = x.shape[:2]
        # channels last in memory, as the trunk is fastest on CPUs
        x = torch.stack([near[:, :-2], near[:, 1:-1], near[:, 2:]], -1)
        return self.temporal(self.rows(x.flatten(0, 1).permute(0, 3, 1, 2)).view(b, t, -1), mask)

    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """One row [N, width] for each three neighbouring even frames f4 [N, 3, 88, 88], before any temporal layer."""
        rows: torch.Tensor = self.project(self.trunk(x).flatten(1))
        return rows

    def neighbours(self, length: int) -> torch.Tensor:
        """The three frames i8 [length, 3] that each row of a window sees, counted from the window's first; outside of 0
        to length - 1 there is none (`rows` sees zeros)."""
        first = torch.arange(length)[:, None]
        return first + torch.arange(-2, 1) if self.causal else first + torch.arange(-1, 2)


class AudioEncoder(nn.Module):
    """audio i2 [B, 640 T] -> unit rows [B, T, width]."""

    def __init__(self, c: LiteConfig) -> None:
        super().__init__()
        self.features = LogMel(c.mels, c.causal)
        self.reduce = nn.ModuleList(
            [
                _Conv(c.mels, c.width, 5, causal=c.causal, bias=False),
                _Conv(c.width, c.width, 4, stride=2, causal=c.causal, bias=False),
                _Conv(c.width, c.width, 4, stride=2, causal=c.causal, bias=False),
            ]
        )
        self.norms = nn.ModuleList([nn.LayerNorm(c.width) for _ in self.reduce])
        self.temporal = Temporal(c)

    def forward(self, audio: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.features(audio, mask).transpose(1, 2)  # [B, mels, 4 T]
        rate = MEL_PER_FRAME
        for conv, norm, stride in zip(self.reduce, self.norms, (1, 2, 2), strict=True):
            x = conv(x * mask.repeat_interleave(rate, 1)[:, None])
            x = F.relu(norm(x.transpose(1, 2)).transpose(1, 2))
            rate //= stride
        return self.temporal(x.transpose(1, 2), mask)


class _Conv(nn.Conv1d):
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
        self.convs = nn.ModuleList([_Conv(c.width, c.width, 5, causal=c.causal) for _ in range(c.temporal_layers)])
        self.dropout = nn.Dropout(c.dropout)
        self.out_norm = nn.LayerNorm(c.width)
        self.out = nn.Linear(c.width, c.width)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.contrast(x, mask)
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = F.relu(norm(x)) * mask[..., None]
            x = x + self.dropout(conv(y.transpose(1, 2)).transpose(1, 2))
        return F.normalize(self.out(self.out_norm(x)).float(), dim=-1, eps=1e-6)


class AgreementHead(nn.Module):
    """Cosines of lips and sound, by group of channels and offset, to one logit per frame and one per clip; positive =
    fake."""

    def __init__(self, c: LiteConfig) -> None:
        super().__init__()
        self.groups, self.offsets = c.groups, c.offsets
        rows = (c.groups + 1) * (2 * c.offsets + 1)
        self.first = nn.Conv1d(rows, 32, 1)
        self.second = _Conv(32, 32, 9, causal=c.causal)
        self.causal = c.causal
        self.dropout = nn.Dropout(c.dropout)
        self.logit = nn.Conv1d(32, 1, 1)
        self.weight = nn.Linear(c.width, 1)  # weight of a frame, from its sound: silence is not informative

    def forward(self, v: torch.Tensor, a: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """v, a [B, T, width], mask [B, T] -> frame logits [B, T], clip logits [B] (weighted mean over the mask)."""
        b, t, d = v.shape
        v, a = v * mask[..., None], a * mask[..., None]
        if self.causal:  # later sound is compared once it has arrived: v at t - k with a at t
            past = F.pad(a, (0, 0, self.offsets, 0)).unfold(1, self.offsets + 1, 1)
            lips = F.pad(v, (0, 0, self.offsets, 0)).unfold(1, self.offsets + 1, 1)
            pairs = torch.cat([v[..., None] * past, (a[..., None] * lips)[..., :-1]], -1)
        else:
            near = F.pad(a, (0, 0, self.offsets, self.offsets)).unfold(1, 2 * self.offsets + 1, 1)
            pairs = v[..., None] * near  # [B, T, D, offsets]
        parts = pairs.view(b, t, self.groups, d // self.groups, -1).sum(3)  # [B, T, groups, offsets]
        rows = torch.cat([parts * self.groups, parts.sum(2, keepdim=True)], 2).flatten(2)
        x = F.relu(self.first(rows.transpose(1, 2))) * mask[:, None]
        x = self.dropout(F.relu(self.second(x)))
        frame_logits = self.logit(x)[:, 0].float()
        weight = (torch.sigmoid(self.weight(a)[..., 0].float()) + 1e-3) * mask
        clip_logits = (frame_logits * weight).sum(1) / weight.sum(1).clamp(min=1e-6)
        return frame_logits, clip_logits
