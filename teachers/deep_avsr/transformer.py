"""The two networks of deep_avsr that recognise characters: 40 log posteriors for each 1/25 s, from sound or from the
visual front end's rows.

Sinusoidal positions, six plus six post-norm transformer layers and one linear map to 40 classes. For sound, a
convolution first turns four rows into one. Names and shapes are those of github smeetrs/deep_avsr, commit b68a8db. Rows
past a clip's end in a batch are masked in attention; no other operation mixes rows. There is no dropout, because the
networks are not trained here.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 512
HEADS = 8
HIDDEN = 2048
LAYERS = 6  # in the encoder, and again in the decoder
POSITIONS = 2500  # frames, 100 s
BINS = 321  # of the spectrum
ROWS_PER_FRAME = 4  # of the spectrum: 100 a second
CLASSES = 40
BASE = 10_000  # of the sinusoids' periods


class AudioNet(nn.Module):
    """Spectra [clips, 4 * frames, BINS] to log posteriors [clips, frames, CLASSES]; extra rows are dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.audioConv = nn.Conv1d(BINS, WIDTH, ROWS_PER_FRAME, ROWS_PER_FRAME)
        self.positionalEncoding = Positions()
        self.audioEncoder = Layers()
        self.audioDecoder = Layers()
        self.outputConv = nn.Conv1d(WIDTH, CLASSES, 1)

    def forward(self, spectra: Tensor, inside: Tensor | None = None) -> Tensor:
        """inside: bool [clips, frames], False past a clip's end; None where every clip is as long as the batch."""
        x = self.positionalEncoding(self.audioConv(spectra.transpose(1, 2)).transpose(1, 2))
        x = self.audioDecoder(self.audioEncoder(x, inside), inside)
        return _log_posteriors(self.outputConv, x)


class VideoNet(nn.Module):
    """Rows of the visual front end [clips, frames, WIDTH] to log posteriors [clips, frames, CLASSES]."""

    def __init__(self) -> None:
        super().__init__()
        self.positionalEncoding = Positions()
        self.videoEncoder = Layers()
        self.videoDecoder = Layers()
        self.outputConv = nn.Conv1d(WIDTH, CLASSES, 1)

    def forward(self, rows: Tensor, inside: Tensor | None = None) -> Tensor:
        """inside: bool [clips, frames], False past a clip's end; None where every clip is as long as the batch."""
        x = self.positionalEncoding(rows)
        x = self.videoDecoder(self.videoEncoder(x, inside), inside)
        return _log_posteriors(self.outputConv, x)


class Positions(nn.Module):
    """Adds sines to the even and cosines to the odd columns (Vaswani et al. 2017, section 3.5)."""

    pe: Tensor

    def __init__(self) -> None:
        super().__init__()
        angle = torch.arange(POSITIONS)[:, None] * torch.exp(torch.arange(0, WIDTH, 2) * (-math.log(BASE) / WIDTH))
        table = torch.stack([angle.sin(), angle.cos()], dim=2).reshape(POSITIONS, 1, WIDTH)
        self.register_buffer("pe", table)  # a checkpoint contains its own table, of the same formula

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[: x.shape[1], 0]


class Layers(nn.Module):
    """LAYERS transformer layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = layer(x, inside)
        return x


class Layer(nn.Module):
    """Attention and feed-forward, each added to its input and then normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = Attention()
        self.linear1 = nn.Linear(WIDTH, HIDDEN)
        self.linear2 = nn.Linear(HIDDEN, WIDTH)
        self.norm1 = nn.LayerNorm(WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        x = self.norm1(x + self.self_attn(x, inside))
        return self.norm2(x + self.linear2(functional.relu(self.linear1(x))))


class Attention(nn.Module):
    """Self-attention of HEADS heads; rows where `inside` [clips, rows] is False are masked."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * WIDTH, WIDTH))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * WIDTH))
        self.out_proj = nn.Linear(WIDTH, WIDTH)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        mixed = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = mixed.view(*x.shape[:2], 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        keys = None if inside is None else inside[:, None, None]
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=keys)
        return self.out_proj(found.transpose(1, 2).flatten(2))


def _log_posteriors(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """Log softmax over classes, always in single precision, whatever the precision of x [clips, frames, WIDTH]."""
    scores = functional.linear(x, conv.weight[:, :, 0], conv.bias)
    return functional.log_softmax(scores.float(), dim=2)
