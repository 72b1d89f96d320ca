# Written in chapters/vit.md; edit it there, then run make export.
"""Where a model looks: its attention weights, and their product over layers.

Axes: B batch, H heads, T tokens (queries and keys).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from litformer.attention import (
    MultiHeadAttention,
    attention,
    attention_weights,
)

__all__ = ["attention_maps", "rollout"]


@torch.no_grad()
def attention_maps(
    model: nn.Module, *inputs: Tensor, **options: object
) -> list[Float[Tensor, "B H T S"]]:
    """The weights of each attention layer, in the order in which they run.

    Calls `model(*inputs, **options)` and leaves the model as it was. The
    weights of all layers are kept: L * B * H * T * T numbers.

    Raises:
        ValueError: no attention layer, or one with an `attend` that has
            parameters of its own.
    """
    layers = [m for m in model.modules() if isinstance(m, MultiHeadAttention)]
    if not layers or any(isinstance(x.attend, nn.Module) for x in layers):
        raise ValueError(
            "attention_maps: needs MultiHeadAttention layers whose attend= "
            f"is a function, found {len(layers)} layers in "
            f"{type(model).__name__}."
        )
    seen: list[Tensor] = []

    def watched(q, k, v, mask=None, *, causal=False, dropout_p=0.0):
        seen.append(attention_weights(q, k, mask, causal=causal))
        return attention(q, k, v, mask, causal=causal, dropout_p=dropout_p)

    before = [layer.attend for layer in layers]
    try:
        for layer in layers:
            layer.attend = watched
        model(*inputs, **options)
    finally:
        for layer, attend in zip(layers, before, strict=True):
            layer.attend = attend
    return seen


def rollout(
    maps: Sequence[Float[Tensor, "B H T T"]],
) -> Float[Tensor, "B T T"]:
    """How much of each input token is in each output token, so told.

    Counts the residual stream as half of every layer, takes the mean over
    heads and multiplies the layers. Rows sum to one.

    Raises:
        ValueError: no maps, or maps that are not those of self-attention.

    Source: Abnar and Zuidema (2020), section 3.
    """
    if not maps:
        raise ValueError("rollout: needs the map of at least one layer.")
    shape = maps[0].shape
    if len(shape) != 4 or shape[2] != shape[3]:
        raise ValueError(
            f"rollout: maps must have shape (B, H, T, T), got {tuple(shape)}. "
            "Cross-attention does not mix tokens of one kind."
        )
    same = torch.eye(shape[-1], dtype=maps[0].dtype, device=maps[0].device)
    joint = same.expand(shape[0], -1, -1)
    for weights in maps:
        joint = (0.5 * same + 0.5 * weights.mean(dim=1)) @ joint
    return joint
