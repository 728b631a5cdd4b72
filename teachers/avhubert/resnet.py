"""AV-HuBERT's visual front end: a 5 x 7 x 7 convolution over time and picture, then ResNet-18 on every frame.

Written from the architecture and checked against golden values, with the names of published state dicts. Imports torch;
only `model` imports this module. Two choices for speed change results in the last bits: the 3-D convolution has one
input channel, so it is a 2-D one over five frames as channels, and activations lie channels-last (twice the speed of
that convolution on a CPU, and fifteen times that of the pooling). Frames go through FRAMES at a time, so memory does
not grow with the clip; with 64 the largest buffer has 32 MB; above that the C library returns memory to the system each
time (5 to 20 % slower).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

FRAMES = 64  # frames in one pass
KERNEL = 5  # frames that the first convolution sees
CHANNELS = 512  # values per frame


def _activation(kind: str, channels: int) -> nn.Module:
    return nn.PReLU(channels) if kind == "prelu" else nn.ReLU()


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut around them."""

    def __init__(self, given: int, channels: int, stride: int, activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = _activation(activation, channels)
        self.relu2 = _activation(activation, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(given, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(x)) + shortcut)


class Trunk(nn.Module):
    """ResNet-18 without its stem: [frames, 64, 22, 22] to [frames, 512]."""

    def __init__(self, activation: str) -> None:
        super().__init__()
        given = 64
        for k, (channels, stride) in enumerate([(64, 1), (128, 2), (256, 2), (CHANNELS, 2)], start=1):
            blocks = Block(given, channels, stride, activation), Block(channels, channels, 1, activation)
            self.add_module(f"layer{k}", nn.Sequential(*blocks))
            given = channels

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.children():
            x = stage(x)
        return x.mean(dim=(2, 3))


class ResNet(nn.Module):
    """[clips, 1, frames, 88, 88] to [clips, 512, frames]; frames of zeros act as the padding at a clip's end."""

    def __init__(self, activation: str) -> None:
        """activation: "prelu", or "relu", which has no parameters."""
        super().__init__()
        self.frontend3D = nn.Sequential(
            nn.Conv3d(1, 64, (KERNEL, 7, 7), (1, 2, 2), (KERNEL // 2, 3, 3), bias=False),
            nn.BatchNorm3d(64),
            _activation(activation, 64),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )
        self.trunk = Trunk(activation)

    def forward(self, x: Tensor) -> Tensor:
        clips, _, frames, height, width = x.shape
        padded = functional.pad(x[:, 0], (0, 0, 0, 0, KERNEL // 2, KERNEL // 2))
        seen = padded.unfold(1, KERNEL, 1).permute(0, 1, 4, 2, 3)  # a view: [clips, frames, 5, height, width]
        step = max(FRAMES // clips, 1)
        parts = [
            self._rows(seen[:, k : k + step].reshape(-1, KERNEL, height, width)).view(clips, -1, CHANNELS)
            for k in range(0, frames, step)
        ]
        return torch.cat(parts, dim=1).transpose(1, 2)

    def _rows(self, seen: Tensor) -> Tensor:
        """[frames, 512] from five frames around each."""
        layers: Any = self.frontend3D
        conv, norm, activation, _ = layers
        weight = conv.weight[:, 0].contiguous(memory_format=torch.channels_last)
        x = functional.conv2d(seen.contiguous(memory_format=torch.channels_last), weight, stride=2, padding=3)
        x = functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return self.trunk(functional.max_pool2d(activation(x), 3, 2, 1))
