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

from student.models.lite_layers import MEL_PER_FRAME, Conv, LogMel, Temporal
from student.models.output import Output
from student.models.texture import MEASURES, Texture

CROP = 88  # of the store's 96 pixels
CROSSED = 4  # sounds of other windows of a batch on which the head is trained, for each window's lips

LIMITS = {  # smallest and largest value of each size
    "width": (1, 4096), "temporal_layers": (0, 64), "reach": (0, 10_000), "mels": (1, 512), "groups": (1, 4096),
    "offsets": (0, 1000), "texture": (0, 4096),
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
    texture: int = 0  # width of the branch that sees how the mouth is drawn (`student.models.texture`); 0 = none
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
        return (
            convolved
            + projected
            + heard
            + temporal
            + 32 * (self.groups + 1) * (2 * self.offsets + 1)
            + MEASURES * self.texture
        )


class Lite(nn.Module):
    """See the module. forward(mouth, audio, mask) -> Output."""

    fusion: torch.Tensor

    def __init__(self, config: LiteConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or LiteConfig()
        self.visual = VisualEncoder(c)
        self.audio = AudioEncoder(c)
        self.head = AgreementHead(c)
        self.texture = Texture(c.texture, causal=c.causal) if c.texture else None
        if self.texture is not None:
            self.register_buffer("fusion", torch.ones(2))  # weights of agreement and texture, fitted by validation
        self.log_scale = nn.Parameter(torch.tensor(math.log(8.0)))
        self.bias = nn.Parameter(torch.tensor(-3.0))  # most possible pairs do not belong together

    def forward(
        self,
        mouth: torch.Tensor,
        audio: torch.Tensor,
        mask: torch.Tensor | None = None,
        drawn: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> Output:
        """mouth u1 [B, T, 96, 96] (centre taken) or [B, T, 88, 88], audio i2 [B, 640 T], mask bool [B, T]: True for
        rows in use. In training `drawn` has the windows for the texture branch, pictures u1 [K, T, 88, 88] and their
        mask: then both branches answer apart."""
        if mask is None:
            mask = torch.ones(mouth.shape[:2], dtype=torch.bool, device=mouth.device)
        v, a = self.visual(mouth, mask), self.audio(audio, mask)
        if self.texture is not None and drawn is None:
            return self.join(v, a, mask, self.texture(mouth, mask))
        found = self.join(v, a, mask)
        if self.training:
            found = found._replace(crossed=self.crossed(v.detach(), a.detach(), mask))
        if self.texture is None or drawn is None:
            return found
        return found._replace(drawn=self.texture.taught(*drawn))

    def crossed(self, v: torch.Tensor, a: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The head's clip logits [R + 1, B] of every lips row of v, a [B, T, width] with the sound R = 0, 1, ... rows on."""
        rolls = range(min(CROSSED, len(v) - 1) + 1)
        sound, both = (torch.cat([x.roll(-k, 0) for k in rolls]) for x in (a, mask))
        _, clips = self.head(v.repeat(len(rolls), 1, 1), sound, mask.repeat(len(rolls), 1) & both)
        return clips.view(len(rolls), -1)

    def join(
        self,
        v: torch.Tensor,
        a: torch.Tensor,
        mask: torch.Tensor,
        texture: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> Output:
        """The output from the embeddings of both encoders, unit rows [B, T, width], and the texture's logits [B, T] and
        [B]."""
        frames, clips = self.head(v, a, mask)
        parts = None
        if texture is not None:
            parts = torch.stack([clips, texture[1]], -1)
            frames = self.fusion[0] * frames + self.fusion[1] * texture[0]
            clips = parts @ self.fusion
        return Output(v, a, frames, clips, self.log_scale.exp(), self.bias, parts)


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
                Conv(c.mels, c.width, 5, causal=c.causal, bias=False),
                Conv(c.width, c.width, 4, stride=2, causal=c.causal, bias=False),
                Conv(c.width, c.width, 4, stride=2, causal=c.causal, bias=False),
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


class AgreementHead(nn.Module):
    """Cosines of lips and sound, by group of channels and offset, to one logit per frame and one per clip; positive =
    fake."""

    def __init__(self, c: LiteConfig) -> None:
        super().__init__()
        self.groups, self.offsets = c.groups, c.offsets
        rows = (c.groups + 1) * (2 * c.offsets + 1)
        self.first = nn.Conv1d(rows, 32, 1)
        self.second = Conv(32, 32, 9, causal=c.causal)
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
