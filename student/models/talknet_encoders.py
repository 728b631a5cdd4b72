"""The two encoders of `talknet`: faces through a residual network over single frames, MFCC through squeeze-excitation blocks.

Layers and the names of their weights are those of TalkNet-ASD (Tao et al. 2021, "Is Someone Speaking?", arXiv
2107.06592), from which the paper's student is built. The addition is `keep`, bool [B, T] for rows in use or None for
all: rows outside are zeroed before each layer that sees neighbours, and excluded from all means. So a padded clip gives
the same result as alone, in training too.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

GREY_MEAN, GREY_SPREAD = 0.4161, 0.1688  # of a face in 0 to 1
TAPS = 5  # frames that the stem sees at once
FRAMES_AT_ONCE = 64  # in the residual network, without gradients: limits the memory for long clips


def norm(layer: nn.Module, x: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
    """Batch norm of x [B, C, ..., n] over the rows in use, keep [B, n]; zero outside them."""
    if keep is None:
        return layer(x)
    if not layer.training:
        return layer(x) * keep.view(len(keep), *[1] * (x.ndim - 2), -1)
    rows = x.movedim(-1, 1)  # [B, n, C, ...]
    out = torch.zeros_like(rows)
    used = rows[keep]  # [N, C, ...], with one more axis for layers that expect it
    out[keep] = layer(used[..., None]).squeeze(-1).to(out.dtype)
    return out.movedim(1, -1)


class Taps(nn.Conv3d):
    """The 3-D convolution of the stem, 5 x 7 x 7, for frames with their neighbours: [N, 5, h, w] -> [N, 64, h / 2, w / 2]."""

    def __init__(self) -> None:
        super().__init__(1, 64, (TAPS, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x[:, None])[:, :, 0]


class ResidualStage(nn.Module):
    """Two residual units of two 3 x 3 convolutions, the first with the stage's stride; norm and ReLU follow each sum.

    The second unit's shortcut is the first one's sum before its norm. With stride 1 `downsample` exists but is unused.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1a = _conv3(channels_in, channels, stride)
        self.bn1a = _trunk_norm(channels)
        self.conv2a = _conv3(channels, channels)
        self.downsample = nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False)
        self.outbna = _trunk_norm(channels)
        self.conv1b = _conv3(channels, channels)
        self.bn1b = _trunk_norm(channels)
        self.conv2b = _conv3(channels, channels)
        self.outbnb = _trunk_norm(channels)
        self.strided = stride != 1
        if not self.strided:
            self.downsample.requires_grad_(False)  # otherwise distributed processes would wait for its gradient

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2a(F.relu(self.bn1a(self.conv1a(x)), inplace=True))
        kept = y + (self.downsample(x) if self.strided else x)
        y = F.relu(self.outbna(kept), inplace=True)
        y = self.conv2b(F.relu(self.bn1b(self.conv1b(y)), inplace=True)) + kept
        return F.relu(self.outbnb(y), inplace=True)


class ResidualTrunk(nn.Module):
    """[N, 64, 28, 28] -> [N, 512]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = ResidualStage(64, 64, 1)
        self.layer2 = ResidualStage(64, 128, 2)
        self.layer3 = ResidualStage(128, 256, 2)
        self.layer4 = ResidualStage(256, 512, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3))


class VisualFrontend(nn.Module):
    """Faces [B, T, 112, 112] in 0 to 255 -> one row of 512 per frame [B, T, 512], zero outside `keep`.

    The stem sees two frames on each side. With `join_clips` (as published) the clips of a batch form one sequence, and
    the stem sees across their borders; otherwise it sees zeros beyond a clip's ends. Channels are last in memory, which
    makes convolutions faster, except in training as published: a batch norm's sums are less exact in that layout,
    enough to flip a few ReLUs.
    """

    layout = torch.channels_last

    def __init__(self, join_clips: bool) -> None:
        super().__init__()
        self.join_clips = join_clips
        self.frontend3D = nn.Sequential(Taps(), _trunk_norm(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        self.resnet = ResidualTrunk()

    def forward(self, faces: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        b, t = faces.shape[:2]
        x = (faces.float() / 255 - GREY_MEAN) / GREY_SPREAD
        x = torch.cat([x.flatten(0, 1), x.new_zeros(1, *x.shape[2:])])  # the last one represents a missing frame
        used = torch.ones(b, t, dtype=torch.bool, device=x.device) if keep is None else keep
        near = neighbours(used, self.join_clips)
        whole = self.training or torch.is_grad_enabled()
        parts = [near] if whole else near.split(FRAMES_AT_ONCE)
        rows = torch.cat([self._rows(x[part]) for part in parts])
        if keep is None:
            return rows.view(b, t, -1)
        out = rows.new_zeros(b, t, rows.shape[-1])
        out[keep] = rows
        return out

    def _rows(self, x: torch.Tensor) -> torch.Tensor:
        convolve, *rest = self.frontend3D
        x = convolve(x)
        if not (self.training and self.join_clips):
            x = x.contiguous(memory_format=self.layout)
        for layer in rest:
            x = layer(x)
        return self.resnet(x)


def neighbours(keep: torch.Tensor, join_clips: bool) -> torch.Tensor:
    """For each of the N frames in use, in order, the flat indices i8 [N, 5] of the frames around it; B * T for a
    missing one.

    keep bool [B, T]: True for the first rows of each clip.
    """
    clip, time = keep.nonzero(as_tuple=True)
    place = torch.arange(len(clip), device=keep.device)[:, None] + torch.arange(-(TAPS // 2), TAPS // 2 + 1).to(clip)
    there = (place >= 0) & (place < len(clip))
    place = place.clamp(0, len(clip) - 1)
    if not join_clips:
        there &= clip[place] == clip[:, None]
    flat = clip * keep.shape[1] + time
    return torch.where(there, flat[place], keep.numel())


class GlobalNorm(nn.Module):
    """Zero mean and unit variance over channels and time together, separately for each clip: [B, C, T] -> same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, channels, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1))

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        x = x.float()
        if keep is None:
            mean, variance = x.mean((1, 2), keepdim=True), x.var((1, 2), correction=0, keepdim=True)
        else:
            share = keep[:, None].float() / (keep.sum(1).view(-1, 1, 1) * x.shape[1])
            mean = (x * share).sum((1, 2), keepdim=True)
            variance = ((x - mean).square() * share).sum((1, 2), keepdim=True)
        return self.gamma * (x - mean) * torch.rsqrt(variance + 1e-8) + self.beta


class DepthwiseBlock(nn.Module):
    """[B, 512, T] -> same: a residual block with a depthwise convolution over three frames, then a pointwise one."""

    def __init__(self) -> None:
        super().__init__()
        channels = 512
        self.net = nn.Sequential(
            nn.ReLU(),
            nn.BatchNorm1d(channels),
            nn.Conv1d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.PReLU(),
            GlobalNorm(channels),
            nn.Conv1d(channels, channels, 1, bias=False),
        )

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        relu, batch_norm, depthwise, prelu, global_norm, mix = self.net
        return x + mix(global_norm(prelu(depthwise(norm(batch_norm, relu(x), keep))), keep))


class VisualTCN(nn.Module):
    """Five such blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.ModuleList(DepthwiseBlock() for _ in range(5))

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        for block in self.net:
            x = block(x, keep)
        return x


class VisualConv1D(nn.Module):
    """[B, 512, T] -> [B, 128, T]."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(512, 256, 5, padding=2), nn.BatchNorm1d(256), nn.ReLU(), nn.Conv1d(256, 128, 1)
        )

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        wide, batch_norm, relu, narrow = self.net
        return narrow(relu(norm(batch_norm, wide(x if keep is None else x * keep[:, None]), keep)))


class SqueezeExcitation(nn.Module):
    """Each channel of [B, C, F, n] times a factor that is computed from the clip's means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(channels, channels // 8), nn.ReLU(), nn.Linear(channels // 8, channels), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        # outside `keep` x is zero
        mean = x.mean((2, 3)) if keep is None else x.sum((2, 3)) / (keep.sum(1, keepdim=True) * x.shape[2])
        return x * self.fc(mean)[..., None, None]


class AudioBlock(nn.Module):
    """Two 3 x 3 convolutions with norms and squeeze-excitation, beside a shortcut; `keep` is of the output's rows."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = _conv3(channels_in, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.se = SqueezeExcitation(channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        y = norm(self.bn1, F.relu(self.conv1(x)), keep)
        y = self.se(norm(self.bn2, self.conv2(y), keep), keep)
        if self.downsample is not None:
            project, batch_norm = self.downsample
            x = norm(batch_norm, project(x), keep)
        return F.relu(y + x)


class AudioEncoder(nn.Module):
    """MFCC [B, 4 T, 13] -> one row of 128 per frame [B, T, 128]; an image of 13 x 4 T becomes one of 2 x T."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 7, stride=(2, 1), padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.layer1 = _group(16, 16, 3, 1)
        self.layer2 = _group(16, 32, 4, 2)
        self.layer3 = _group(32, 64, 6, 2)
        self.layer4 = _group(64, 128, 3, 1)

    def forward(self, mfcc: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        x = mfcc.transpose(1, 2)[:, None]
        if keep is not None:
            keep = keep.repeat_interleave(4, 1)
            x = x * keep[:, None, None]
        x = self.relu(norm(self.bn1, self.conv1(x), keep))
        for group in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in group:
                keep = keep if keep is None else keep[:, :: block.stride]
                x = block(x, keep)
        return x.mean(2).transpose(1, 2)


def _group(channels_in: int, channels: int, blocks: int, stride: int) -> nn.ModuleList:
    first = AudioBlock(channels_in, channels, stride)
    return nn.ModuleList([first, *(AudioBlock(channels, channels, 1) for _ in range(blocks - 1))])


def _conv3(channels_in: int, channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)


def _trunk_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=0.001, momentum=0.01)
