"""A Whisper encoder on sound of any length, and one block of it in two steps, so that its rows may attend to keys and values
of other rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from whisper.model import AudioEncoder, ResidualAttentionBlock

ROWS_PER_FRAME = 2  # the encoder's 50 rows per second, averaged in pairs
MELS_PER_FRAME = 4


def rows(encoder: AudioEncoder, mel: Tensor, inside: Tensor | None, layer: int | None = None) -> Tensor:
    """The encoder on mel [clips, mels, 4 * frames]: [clips, 2 * frames, dim], valid where bool inside [clips, frames] is
    True (None: everywhere). `layer`: the rows after so many blocks; None for those after the last norm."""
    from torch.nn.functional import gelu

    x = gelu(encoder.conv1(mel))
    if inside is not None:
        x = x * inside.repeat_interleave(MELS_PER_FRAME, dim=1)[:, None]
    x = gelu(encoder.conv2(x)).transpose(1, 2)
    x = x + encoder.positional_embedding[: x.shape[1]]
    keys = None if inside is None else inside.repeat_interleave(ROWS_PER_FRAME, dim=1)[:, None, None]
    for block in encoder.blocks[:layer]:
        x = passed(block, x, *heads(block, x), keys)
    return encoder.ln_post(x) if layer is None else x


def heads(block: ResidualAttentionBlock, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value [clips, heads, rows, dim / heads] of x [clips, rows, dim]."""
    normed, attention = block.attn_ln(x), block.attn
    split = (*x.shape[:2], attention.n_head, -1)
    query, key, value = (
        layer(normed).view(split).transpose(1, 2) for layer in (attention.query, attention.key, attention.value)
    )
    return query, key, value


def passed(
    block: ResidualAttentionBlock, x: Tensor, query: Tensor, key: Tensor, value: Tensor, keys: Tensor | None = None
) -> Tensor:
    """x [clips, rows, dim] after the block, if its queries attend to these keys and values; bool keys [clips, 1, 1, rows]
    is False for those that are left out, None if there are none."""
    from torch.nn.functional import scaled_dot_product_attention

    mixed = scaled_dot_product_attention(query, key, value, attn_mask=keys)
    x = x + block.attn.out(mixed.transpose(1, 2).flatten(2))
    return x + block.mlp(block.mlp_ln(x))
