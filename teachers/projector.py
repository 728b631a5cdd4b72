"""The networks of `contrast`: two small maps into one space, in which lips and sound of the same moment are close.

The picture side is a temporal network (three residual convolutions, receptive field of 11 frames). The sound side sees
one frame, because its embedding already contains the context: a linear map, and a small layer beside it. Several
networks are compared together: the mean of their cosines travels to other people better than one's. The weights are
plain arrays, which the store keeps. How they are learned: `teachers.learn_projector`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

MOST_NETWORKS = 16  # that a fit, which may come from anyone, can have
DIMS = 32  # of the shared space of each
WIDTH = 96  # of the picture side's hidden layers
HIDDEN = 128  # of the layer on the sound side
KERNELS = (5, 5, 3)  # frames that each convolution sees
DROPOUT = 0.2
SCALE = 10.0  # initial scale of the cosine in the loss; it is learned


class Projector:
    """The two maps, from the arrays that `learn` gave. (Those of earlier releases are one network, not stacked, and have
    no layer on the sound side.)"""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        """Raises ValueError if the arrays do not belong to this network."""
        try:
            if np.ndim(arrays["log_scale"]):
                count = len(arrays["log_scale"])
                if not 0 < count <= MOST_NETWORKS or any(len(a) != count for a in arrays.values()):
                    raise ValueError(f"{count} networks whose arrays differ in number")
                each = [{name: a[k] for name, a in arrays.items()} for k in range(count)]
            else:
                each = [arrays]
            self._nets = [_loaded(one) for one in each]
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            said = str(error).splitlines()[-1].strip()
            raise ValueError(f"the fit's network is not of this kind or is damaged: {said}") from error

    @property
    def dims(self) -> int:
        return DIMS * len(self._nets)

    def vsr(self, x: np.ndarray) -> np.ndarray:
        """Picture embedding [frames, Dv] in the shared space: [frames, networks * DIMS] f4 of length 1."""
        return self._run([net.picture for net in self._nets], x)

    def asr(self, y: np.ndarray) -> np.ndarray:
        """Sound embedding [frames, Da] in the shared space: [frames, networks * DIMS] f4 of length 1."""
        return self._run([net.sound for net in self._nets], y)

    @staticmethod
    def _run(sides, x: np.ndarray) -> np.ndarray:
        if len(x) == 0:
            return np.zeros((0, DIMS * len(sides)), np.float32)
        with torch.inference_mode():
            rows = torch.from_numpy(np.array(x, np.float32))[None]
            return (torch.cat([side(rows)[0] for side in sides], dim=1) / math.sqrt(len(sides))).numpy()


def _loaded(arrays: dict[str, np.ndarray]) -> Network:
    with torch.device("meta"):  # no memory is allocated for lengths that may be wrong
        hidden = HIDDEN if "sound_hidden.weight" in arrays else 0
        net = Network(len(arrays["vsr_mean"]), len(arrays["asr_mean"]), hidden)
    net.load_state_dict({name: torch.tensor(np.asarray(a, np.float32)) for name, a in arrays.items()}, assign=True)
    return net.eval()


class Network(nn.Module):
    """Picture [clips, frames, Dv] and sound [clips, frames, Da] to [clips, frames, DIMS] of length 1."""

    vsr_mean: torch.Tensor
    vsr_std: torch.Tensor
    asr_mean: torch.Tensor
    asr_std: torch.Tensor

    def __init__(self, vsr_columns: int, asr_columns: int, hidden: int) -> None:
        """`hidden`: columns of the layer on the sound side, 0 for none."""
        super().__init__()
        for side, columns in (("vsr", vsr_columns), ("asr", asr_columns)):
            self.register_buffer(f"{side}_mean", torch.zeros(columns))
            self.register_buffer(f"{side}_std", torch.ones(columns))
        self.picture_in = nn.Linear(vsr_columns, WIDTH)
        self.convolutions = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, kernel, padding=kernel // 2) for kernel in KERNELS)
        self.picture_out = nn.Linear(WIDTH, DIMS)
        self.sound_out = nn.Linear(asr_columns, DIMS)
        self.sound_hidden = nn.Linear(asr_columns, hidden) if hidden else None
        self.sound_more = nn.Linear(hidden, DIMS) if hidden else None
        self.log_scale = nn.Parameter(torch.tensor(math.log(SCALE)))

    def picture(self, x: torch.Tensor) -> torch.Tensor:
        x = self._dropped((x - self.vsr_mean) / self.vsr_std, DROPOUT / 2)
        x = F.gelu(self.picture_in(x))
        for convolution in self.convolutions:
            x = x + F.gelu(convolution(self._dropped(x, DROPOUT).transpose(1, 2)).transpose(1, 2))
        return F.normalize(self.picture_out(self._dropped(x, DROPOUT)), dim=-1)

    def sound(self, y: torch.Tensor) -> torch.Tensor:
        y = self._dropped((y - self.asr_mean) / self.asr_std, DROPOUT)
        found = self.sound_out(y)
        if self.sound_hidden is not None and self.sound_more is not None:
            found = found + self.sound_more(F.gelu(self.sound_hidden(y)))
        return F.normalize(found, dim=-1)

    def _dropped(self, x: torch.Tensor, share: float) -> torch.Tensor:
        """Dropout of whole columns, the same in all frames of a clip: neighbouring frames would reveal a single dropped
        value, and drawing one for each frame takes a fifth of a step's time."""
        if not self.training:
            return x
        return x * (torch.rand(len(x), 1, x.shape[2]) >= share) / (1 - share)
