"""The features of sound padded to 30 s, without computing all of the padding: half of the time for a clip of 3 s.

Whisper has learned from windows of 30 s, and decoded from rows of trimmed sound it loops. So the rows of the padding are
needed, but they depend little on the sound. They are computed once for a window without sound, block by block. Of a
window with sound, the rows of the sound and AFTER more are computed, and of the rest every STRIDE-th: by what these
differ from the window without sound, their neighbours' keys and values are moved, to which the computed rows attend.

The features of the sound differ from the model's own by .2 to .4 %. docs/measurements.md has what that does to words.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from teachers.whisper.block import heads, passed

if TYPE_CHECKING:
    from torch import Tensor
    from whisper.model import Whisper as Model

AFTER = 150  # rows, 3 s, behind the sound
STRIDE = 8  # rows
FRAMES_PER_ROW = 2  # of the spectrogram


@dataclass(frozen=True)
class _Silence:
    """A window without sound: keys and values [1, heads, rows, dim / heads] of each block, features f4 [rows, dim]."""

    blocks: list[tuple[Tensor, Tensor]]
    features: Tensor


@dataclass(frozen=True)
class _Rows:
    """The rows of a window that are computed: the first `near`, and those at i8 `far` [k]; `of` [rows - near] is the place
    in `far` of the one that each row behind `near` follows."""

    near: int
    far: Tensor
    of: Tensor

    def filled(self, computed: Tensor, silent: Tensor) -> Tensor:
        """All rows [..., rows, dim] from the computed ones [..., near + k, dim], with those of silence [..., rows, dim]."""
        import torch

        moved = (computed[..., self.near :, :] - silent[..., self.far, :])[..., self.of, :]
        return torch.cat([computed[..., : self.near, :], silent[..., self.near :, :] + moved], dim=-2)


class Encoder:
    """f4 [rows, dim] of a spectrogram f4 [mels, at most 30 s in frames of 10 ms], by an openai-whisper model."""

    def __init__(self, model: Model) -> None:
        self._encoder, self._device = model.encoder, model.device
        self._rows, self._mels = model.dims.n_audio_ctx, model.dims.n_mels

    def __call__(self, mel: Tensor) -> Tensor:
        import torch
        from whisper.audio import pad_or_trim

        encoder, rows = self._encoder, self._computed(mel.shape[1])
        if len(rows.far) < 2:
            return self.whole(mel)
        near = rows.near
        x = self._stem(pad_or_trim(mel, FRAMES_PER_ROW * (near + 2))[None])
        x = torch.cat([x[:, :near], x[:, near : near + 1].expand(-1, len(rows.far), -1)], dim=1)
        x = x + encoder.positional_embedding[torch.cat([torch.arange(near, device=self._device), rows.far])]
        for block, (silent_key, silent_value) in zip(encoder.blocks, self._silence.blocks, strict=True):
            query, key, value = heads(block, x)
            x = passed(block, x, query, rows.filled(key, silent_key), rows.filled(value, silent_value))
        return rows.filled(encoder.ln_post(x)[0], self._silence.features)

    def whole(self, mel: Tensor) -> Tensor:
        """The same by the model's own encoder, from all rows."""
        from whisper.audio import pad_or_trim

        features: Tensor = self._encoder(pad_or_trim(mel, FRAMES_PER_ROW * self._rows)[None])[0]
        return features

    def _computed(self, frames: int) -> _Rows:
        import torch

        near = min(-(-frames // FRAMES_PER_ROW) + AFTER, self._rows)
        far = torch.arange(self._rows, device=self._device)[near + STRIDE // 2 :: STRIDE]
        of = torch.arange(self._rows - near, device=self._device) // STRIDE
        return _Rows(near, far, of.clamp(max=max(0, len(far) - 1)))

    @cached_property
    def _silence(self) -> _Silence:
        import torch

        x = self._stem(torch.zeros(1, self._mels, FRAMES_PER_ROW * self._rows, device=self._device))
        x = x + self._encoder.positional_embedding
        found = []
        for block in self._encoder.blocks:
            query, key, value = heads(block, x)
            found.append((key, value))
            x = passed(block, x, query, key, value)
        return _Silence(found, self._encoder.ln_post(x)[0])

    def _stem(self, mel: Tensor) -> Tensor:
        """Rows [1, frames / 2, dim] before positions and blocks, of mel [1, mels, frames]."""
        from torch.nn.functional import gelu

        x: Tensor = gelu(self._encoder.conv2(gelu(self._encoder.conv1(mel)))).transpose(1, 2)
        return x
