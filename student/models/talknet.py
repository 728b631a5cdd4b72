"""The `talknet` student: the paper's network (TalkNet-ASD's), 15.7 M parameters, under the names of the authors' checkpoint.

Faces and MFCC are encoded separately, each stream attends to the other, both together attend to themselves, and a
linear head gives two logits per frame (index 1 = fake). By default four properties of the published code are corrected
(see `TalkNetConfig`); the options `PAPER` of this package keep them. Like the paper it takes whole faces, which a store
has on request (`student.data.picture`); otherwise it takes mouth crops enlarged to 112 x 112, which differ from the
pictures that weights for faces were trained on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from student.models.features import ROWS_PER_FRAME, Mfcc
from student.models.output import Output
from student.models.talknet_encoders import AudioEncoder, VisualConv1D, VisualFrontend, VisualTCN

SIDE = 112  # pixels of a face
WIDTH = 128
HEADS = 8


@dataclass(frozen=True)
class TalkNetConfig:
    """Properties of the published code, off by default; sizes are the paper's."""

    join_clips: bool = False  # the stem sees neighbouring clips of the batch, so scores depend on them
    attended_embeddings: bool = (
        False  # embeddings are taken after cross attention, where each also contains the other stream
    )
    fake_logit_alone: bool = False  # a clip's logit is that of "fake" alone, not its difference from that of "real"
    wrap: bool = False  # the last three rows of MFCC are the first three again, not the remaining sound
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            right = (
                isinstance(value, int | float) and 0 <= value < 1 if field.name == "dropout" else type(value) is bool
            )
            if not right:
                raise ValueError(f"{field.name} cannot be {str(value)[:40]!a}")


class Streams(NamedTuple):
    """Rows by stage: both front ends and both cross attentions [B, T, 128], self attention [B, T, 256], logits [B, T, 2]."""

    audio_front_end: torch.Tensor
    visual_front_end: torch.Tensor
    cross_audio: torch.Tensor
    cross_visual: torch.Tensor
    self_av: torch.Tensor
    frame_logits: torch.Tensor


class TalkNet(nn.Module):
    """See the module. forward(picture, audio, mask) -> Output; `streams` takes faces and MFCC in the paper's form."""

    def __init__(self, config: TalkNetConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or TalkNetConfig()
        self.features = Mfcc()
        self.model = Network(c)
        self.lossAV = nn.ModuleDict({"FC": nn.Linear(2 * WIDTH, 2)})
        unused = {"projection_A": nn.Linear(512, 256), "projection_B": nn.Linear(128, 256)}
        self.lossCont_Spea = nn.ModuleDict(unused).requires_grad_(False)  # in the authors' checkpoint, but unused
        self.log_scale = nn.Parameter(torch.tensor(math.log(8.0)))  # added by this project, as in `lite`
        self.bias = nn.Parameter(torch.tensor(-3.0))

    def forward(self, picture: torch.Tensor, audio: torch.Tensor, mask: torch.Tensor | None = None) -> Output:
        """picture u1 [B, T, side, side], mouths enlarged to 112; audio i2 [B, 640 T]; mask bool [B, T]: True for the
        first rows of each clip."""
        if mask is None:
            mask = torch.ones(picture.shape[:2], dtype=torch.bool, device=picture.device)
        mfcc = self.features.clips(audio, mask.sum(1), self.config.wrap)
        return self.output(self.streams(_faces(picture), mfcc, mask), mask)

    def output(self, s: Streams, mask: torch.Tensor) -> Output:
        """The output from the streams."""
        after = self.config.attended_embeddings
        visual, audio = (s.cross_visual, s.cross_audio) if after else (s.visual_front_end, s.audio_front_end)
        logits = s.frame_logits.float()
        difference = logits[..., 1] - logits[..., 0]
        each = logits[..., 1] if self.config.fake_logit_alone else difference
        clip = (each * mask).sum(1) / mask.sum(1).clamp(min=1)
        visual, audio = (F.normalize(x.float(), dim=-1, eps=1e-6) for x in (visual, audio))
        return Output(visual, audio, difference, clip, self.log_scale.exp(), self.bias)

    def streams(self, faces: torch.Tensor, mfcc: torch.Tensor, mask: torch.Tensor | None = None) -> Streams:
        """faces [B, T, 112, 112] in 0 to 255, mfcc f4 [B, 4 T, 13]. Rows outside the mask have no meaning."""
        if mfcc.shape[1] != ROWS_PER_FRAME * faces.shape[1]:
            raise ValueError(
                f"{mfcc.shape[1]} rows of MFCC do not match {faces.shape[1]} frames; 4 per frame are needed"
            )
        keep = None if mask is None or bool(mask.all()) else mask
        audio, visual, cross_audio, cross_visual, both = self.model(faces, mfcc, keep)
        return Streams(audio, visual, cross_audio, cross_visual, both, self.lossAV["FC"](both))


class Network(nn.Module):
    """Everything before the head."""

    def __init__(self, c: TalkNetConfig) -> None:
        super().__init__()
        self.visualFrontend = VisualFrontend(c.join_clips)
        self.visualTCN = VisualTCN()
        self.visualConv1D = VisualConv1D()
        self.audioEncoder = AudioEncoder()
        self.crossA2V = AttentionLayer(WIDTH, c.dropout)
        self.crossV2A = AttentionLayer(WIDTH, c.dropout)
        self.selfAV = AttentionLayer(2 * WIDTH, c.dropout)

    def forward(self, faces: torch.Tensor, mfcc: torch.Tensor, keep: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """The first five of `Streams`."""
        audio = self.audioEncoder(mfcc, keep)
        rows = self.visualFrontend(faces, keep).transpose(1, 2)
        visual = self.visualConv1D(self.visualTCN(rows, keep), keep).transpose(1, 2)
        cross_audio = self.crossA2V(audio, visual, keep)
        cross_visual = self.crossV2A(visual, audio, keep)
        both = torch.cat([cross_audio, cross_visual], -1)
        return audio, visual, cross_audio, cross_visual, self.selfAV(both, both, keep)


class AttentionLayer(nn.Module):
    """Attention from `target` to `source`, both [B, T, width]: queries from the target, keys and values from the
    source; the result is added to the source. Then a feed-forward part. Norms follow the sums."""

    need_weights = False  # of `self_attn`, averaged over the heads; without them a faster fused kernel is used

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, HEADS, dropout=dropout, batch_first=True)
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, source: torch.Tensor, target: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        hidden = None if keep is None else ~keep
        found, _ = self.self_attn(target, source, source, key_padding_mask=hidden, need_weights=self.need_weights)
        x = self.norm1(source + self.dropout(found))
        y = self.linear2(self.dropout(F.relu(self.linear1(x))))
        return self.norm2(x + self.dropout(y))


def _faces(picture: torch.Tensor) -> torch.Tensor:
    """u1 [B, T, side, side] -> f4 [B, T, 112, 112] in 0 to 255, bilinear."""
    if picture.shape[-1] == SIDE:
        return picture
    return F.interpolate(picture.float(), (SIDE, SIDE), mode="bilinear", align_corners=False)
