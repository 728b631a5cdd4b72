"""The visual front end: 512 numbers for each picture, computed from 112 x 112 pixels of five neighbouring pictures.

One 3-D convolution over 5 frames and a residual trunk over each frame, with the names and shapes of deep_avsr (github
smeetrs/deep_avsr, commit b68a8db; TalkNet-ASD has the same trunk). The 3-D convolution is computed as a 2-D one over
five stacked pictures, which gives the same sums. All work is then done frame by frame, so long clips can be computed in
parts. Together with the channels-last layout this saves a fifth of the time on the CPU. Nine tenths of the remaining
time are convolutions; folding the batch norms into them saved only 2 % and is not done. When the front end is trained,
the batch norms see one part of a clip at a time.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 112  # pixels
DIM = 512
MEAN, SPREAD = 0.4161, 0.1688  # mean and deviation of grey values in [0, 1]
TIME = 5  # frames that the first convolution sees
# frames in one pass; 16 are a tenth faster on one idle core, but 1.6 times slower on two busy ones
PART = 64
WIDTHS = (64, 128, 256, 512)

Norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=1e-2)


class VisualFrontend(nn.Module):
    """Stacked pictures to rows, `part` frames in one pass."""

    def __init__(self, part: int = PART) -> None:
        super().__init__()
        self.part = part
        self.frontend3D = nn.Sequential(
            nn.Conv3d(1, WIDTHS[0], (TIME, 7, 7), (1, 2, 2), (TIME // 2, 3, 3), bias=False),
            Norm(WIDTHS[0]),
        )
        self.resnet = Trunk()
        self.resnet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stubs lack it

    def forward(self, stacks: Tensor) -> Tensor:
        """f4 [frames, DIM] of normalised stacks [frames, TIME, SIDE, SIDE], as `stacked` makes them."""
        return torch.cat([self.resnet(self.stem(part)) for part in stacks.split(self.part)])

    def stem(self, stacks: Tensor) -> Tensor:
        """[frames, 64, 28, 28] of [frames, TIME, SIDE, SIDE]."""
        stacks = stacks.contiguous(memory_format=torch.channels_last)
        x = functional.conv2d(stacks, self.frontend3D.get_parameter("0.weight")[:, 0], stride=2, padding=3)
        return functional.max_pool2d(functional.relu(self.frontend3D[1](x)), 3, 2, 1)


class Trunk(nn.Module):
    """Four stages of residual blocks and the mean over the picture: [frames, 64, 28, 28] to [frames, DIM]."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = Stage(WIDTHS[0], WIDTHS[0], 1)
        self.layer2 = Stage(WIDTHS[0], WIDTHS[1], 2)
        self.layer3 = Stage(WIDTHS[1], WIDTHS[2], 2)
        self.layer4 = Stage(WIDTHS[2], WIDTHS[3], 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean(dim=(2, 3))


class Stage(nn.Module):
    """Two residual blocks; the first block's sum, before its norm, is the shortcut of the second."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1a = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1a = Norm(width)
        self.conv2a = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.downsample = nn.Conv2d(
            width_in, width, 1, stride, bias=False
        )  # published weights have it for stride 1 too, where it is not used
        self.outbna = Norm(width)
        self.conv1b = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn1b = Norm(width)
        self.conv2b = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.outbnb = Norm(width)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.stride == 1 else self.downsample(x)
        x = self.conv2a(functional.relu(self.bn1a(self.conv1a(x)))) + shortcut
        shortcut, x = x, functional.relu(self.outbna(x))
        x = self.conv2b(functional.relu(self.bn1b(self.conv1b(x)))) + shortcut
        return functional.relu(self.outbnb(x))


def normalised(pictures: Tensor) -> Tensor:
    """Grey pictures [.., SIDE, SIDE] in 0..255, normalised for the network."""
    return (pictures.float() / 255 - MEAN) / SPREAD


def stacked(pictures: Tensor) -> Tensor:
    """Each normalised picture of ONE clip [frames, SIDE, SIDE] with its neighbours: [frames, TIME, SIDE, SIDE]; zeros
    beyond the clip's ends, as in the published convolution's padding."""
    around = functional.pad(pictures, (0, 0, 0, 0, TIME // 2, TIME // 2))
    return around.unfold(0, TIME, 1).movedim(-1, 1)
