"""One block of a Whisper encoder, in two steps, so that its rows may attend to keys and values of other rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from whisper.model import ResidualAttentionBlock


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
