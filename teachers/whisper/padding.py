"""The features of sound padded to 30 s, without computing all of the padding: a clip of 3 s takes a quarter of the time.

Whisper has learned from windows of 30 s, and decoded from rows of trimmed sound it loops. So the rows of the padding are
needed, but they hardly depend on the sound. They are computed once for a window without sound, block by block. Of a
window with sound, the rows of the sound and of AFTER more are computed, and of the rest every STRIDE-th: what these
differ by from the window without sound is added to their neighbours, whose keys and values the computed rows attend to.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from whisper.model import ResidualAttentionBlock
    from whisper.model import Whisper as Model

AFTER = 100  # rows, 2 s, behind the sound
STRIDE = 32  # rows
PER_ROW = 2  # frames of the spectrogram


class Encoder:
    """f4 [1500, dim] of a spectrogram f4 [mels, at most 3000 frames of 10 ms], by an openai-whisper model."""

    def __init__(self, model: Model) -> None:
        self._encoder, self._rows = model.encoder, model.dims.n_audio_ctx
        self._mels, self._device = model.dims.n_mels, model.device

    def __call__(self, mel: Tensor) -> Tensor:
        import torch
        from whisper.audio import pad_or_trim

        encoder, whole = self._encoder, self._rows
        near = -(-mel.shape[1] // PER_ROW) + AFTER  # rows that are computed one by one
        far = torch.arange(near + STRIDE // 2, whole, STRIDE, device=mel.device)
        if len(far) < 2:
            return encoder(pad_or_trim(mel, PER_ROW * whole)[None])[0]
        of = ((torch.arange(near, whole, device=mel.device) - near) // STRIDE).clamp(max=len(far) - 1)
        x = self._stem(pad_or_trim(mel, PER_ROW * (near + 2))[None])
        x = torch.cat([x[:, :near], x[:, near : near + 1].expand(-1, len(far), -1)], dim=1)
        x = x + encoder.positional_embedding[torch.cat([torch.arange(near, device=mel.device), far])]
        keys, silent = self._silence
        for block, (key, value) in zip(encoder.blocks, keys, strict=True):
            x = _block(block, x, (key, value), near, far, of)
        x = encoder.ln_post(x)[0]
        return torch.cat([x[:near], silent[near:] + (x[near:] - silent[far])[of]])

    @cached_property
    def _silence(self) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Keys and values [1, heads, rows, dim / heads] of each block, and features [rows, dim], of a window without
        sound."""
        import torch

        x = self._stem(torch.zeros(1, self._mels, PER_ROW * self._rows, device=self._device))
        x = x + self._encoder.positional_embedding
        keys = []
        for block in self._encoder.blocks:
            _, key, value = _heads(block, x)
            keys.append((key, value))
            x = _block(block, x, None, 0, None, None)
        return keys, self._encoder.ln_post(x)[0]

    def _stem(self, mel: Tensor) -> Tensor:
        """Rows [1, frames / 2, dim] before positions and blocks, of mel [1, mels, frames]."""
        from torch.nn.functional import gelu

        return gelu(self._encoder.conv2(gelu(self._encoder.conv1(mel)))).transpose(1, 2)


def _heads(block: ResidualAttentionBlock, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key, value [1, heads, rows, dim / heads] of a block's rows."""
    normed, attention = block.attn_ln(x), block.attn
    split = (*x.shape[:2], attention.n_head, -1)
    query, key, value = (
        layer(normed).view(split).transpose(1, 2) for layer in (attention.query, attention.key, attention.value)
    )
    return query, key, value


def _block(block, x, silence, near, far, of):
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    query, *own = _heads(block, x)
    if silence is not None:
        own = [
            torch.cat([rows[:, :, :near], base[:, :, near:] + (rows[:, :, near:] - base[:, :, far])[:, :, of]], dim=2)
            for rows, base in zip(own, silence, strict=True)
        ]
    x = x + block.attn.out(scaled_dot_product_attention(query, *own).transpose(1, 2).flatten(2))
    return x + block.mlp(block.mlp_ln(x))
