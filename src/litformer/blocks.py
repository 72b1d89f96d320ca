# Written in chapters/block.md; edit it there, then run make export.
"""One layer of a Transformer: sublayers that read a stream and add to it.

Axes: B batch, T tokens, S tokens of the context, D d_model, Dc its width.
"""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from litformer.kv_cache import KVCache
from litformer.norm import LayerNorm
from litformer.shapes import check_shape

__all__ = ["Block"]


def _given(**options: object) -> dict[str, object]:
    """Those that say something. A module need not know the others."""
    return {
        name: value
        for name, value in options.items()
        if value is not None and value is not False
    }


def _check_context(
    cross_attn: nn.Module | None, context: Tensor | None, mask: Tensor | None
) -> None:
    """A context needs a reader, and a reader a context."""
    if cross_attn is None and (context is not None or mask is not None):
        name = "context_mask" if context is None else "context"
        raise ValueError(
            f"Block: got {name}=, but this block has no cross-attention to "
            "read it. Build it with cross_attn=."
        )
    if cross_attn is not None and context is None:
        raise ValueError(
            "Block: this block has cross-attention and needs context=, such "
            "as the output of an encoder."
        )


def _check_output(sublayer: nn.Module, y: Tensor, x: Tensor) -> None:
    """One tensor like the input: another shape might broadcast, silently."""
    sizes = dict(zip("BTD", x.shape, strict=True))
    name = f"the output of {type(sublayer).__name__}"
    hint = "A sublayer returns one tensor, with the shape of its input."
    check_shape("Block", name, y, "B T D", hint=hint, **sizes)


class Block(nn.Module):
    """Attention, cross-attention if there is one, feed-forward: each adds.

    `norm_first` puts each norm in front of its sublayer (pre-norm), else it
    stands behind the sum (post-norm, as in 2017). `norm` makes one from a
    width. `attn` and `ff` are any modules from (B, T, D) to (B, T, D); `attn`
    is handed `mask`, `causal`, `positions` and `cache` if they are given, and
    `cross_attn` the context and `context_mask`, as `mask`.

    Raises:
        ValueError: shapes that do not fit; a context that nobody reads, or
            none where one is read.
        TypeError: a sublayer that returns something else than a tensor.

    Source: Vaswani et al. (2017), section 3.1; Xiong et al. (2020).
    """

    def __init__(
        self,
        d_model: int,
        attn: nn.Module,
        ff: nn.Module,
        *,
        cross_attn: nn.Module | None = None,
        norm: Callable[[int], nn.Module] = LayerNorm,
        norm_first: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ValueError(
                f"Block: dropout must lie in [0, 1), got {dropout}."
            )
        self.d_model, self.norm_first = d_model, norm_first
        self.dropout = dropout
        self.norm_attn, self.attn = norm(d_model), attn
        crosses = cross_attn is not None
        self.norm_cross = norm(d_model) if crosses else None
        self.cross_attn = cross_attn
        self.norm_ff, self.ff = norm(d_model), ff

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        context: Float[Tensor, "B S Dc"] | None = None,
        *,
        mask: Bool[Tensor, "..."] | None = None,
        context_mask: Bool[Tensor, "..."] | None = None,
        causal: bool = False,
        positions: Int[Tensor, "..."] | tuple[Tensor, ...] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The stream `x` after each sublayer has added to it."""
        hint = f"This block was built with d_model={self.d_model}."
        check_shape("Block", "x", x, "B T D", D=self.d_model, hint=hint)
        _check_context(self.cross_attn, context, context_mask)
        options = _given(
            mask=mask, causal=causal, positions=positions, cache=cache
        )
        x = self._add(x, self.norm_attn, self.attn, **options)
        if self.cross_attn is not None:
            options = _given(mask=context_mask)
            reader = self.norm_cross, self.cross_attn
            x = self._add(x, *reader, context, **options)
        return self._add(x, self.norm_ff, self.ff)

    def _add(
        self,
        x: Tensor,
        norm: nn.Module,
        sublayer: nn.Module,
        *args: Tensor,
        **options: object,
    ) -> Tensor:
        """The stream, and what the sublayer says of it."""
        y = sublayer(norm(x) if self.norm_first else x, *args, **options)
        _check_output(sublayer, y, x)
        x = x + F.dropout(y, self.dropout, self.training)
        return x if self.norm_first else norm(x)
