"""The output of every student."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Output(NamedTuple):
    """A student's output for a batch of B windows with T frames; rows outside the mask are meaningless.

    visual, audio [B, T, D]: unit-length embeddings of one modality each; frame_logits [B, T] and clip_logits [B]: positive =
    fake; scale, bias []: they turn a cosine of the two embeddings into a logit of "they belong together".

    Of a student with a texture branch: parts [B, 2], the clip logits of agreement and of texture, of which clip_logits is
    the weighted sum; in training instead drawn [N, K], its N logits of the windows drawn for it, and clip_logits are of
    agreement alone.

    Of `lite` in training: crossed [R + 1, B], the head's clip logits of each window's lips with its own sound (row 0) and
    with that of the window R places further in the batch; they reach the head's weights alone.
    """

    visual: torch.Tensor
    audio: torch.Tensor
    frame_logits: torch.Tensor
    clip_logits: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor
    parts: torch.Tensor | None = None
    drawn: torch.Tensor | None = None
    crossed: torch.Tensor | None = None
