# Written in chapters/translation.md; edit it there, then run make export.
"""The decoder: a stack of blocks that read their own past, and a context.

Axes: B batch, T target tokens, S tokens of the context, D d_model, H heads,
Dh head width.
"""

from collections.abc import Iterable, Sequence

from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from litformer.attention import MultiHeadAttention
from litformer.blocks import Block
from litformer.kv_cache import KVCache

__all__ = ["Decoder", "Recall"]


class Recall(nn.Module):
    """Cross-attention to one context, whose keys and values are made once.

    Gives what `attn(x, context)` gives. A decoder asks the same context at
    every step, so a step needs new queries only.

    Raises:
        ValueError: called with another context than it was made for.
    """

    def __init__(
        self, attn: MultiHeadAttention, context: Float[Tensor, "B S Dc"]
    ) -> None:
        super().__init__()
        self.attn, self.context = attn, context
        r = attn.n_heads // attn.n_kv_heads
        split = "b s (g d) -> b g s d"
        keys_values = [
            rearrange(project(context), split, g=attn.n_kv_heads)
            for project in (attn.k_proj, attn.v_proj)
        ]
        self.k, self.v = (
            repeat(y, "b g s d -> b (g r) s d", r=r) for y in keys_values
        )

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        context: Float[Tensor, "B S Dc"],
        *,
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Ask the context that it was made for."""
        if context is not self.context:
            raise ValueError(
                "Recall: keys and values were made for another context. Call "
                "decoder.recall(context) with the one that is read."
            )
        attn = self.attn
        q = rearrange(attn.q_proj(x), "b t (h d) -> b h t d", h=attn.n_heads)
        p = attn.dropout if attn.training else 0.0
        out = attn.attend(q, self.k, self.v, mask, dropout_p=p)
        return attn.o_proj(rearrange(out, "b h t d -> b t (h d)"))


class Decoder(nn.Module):
    """Blocks whose tokens see their past, and all of the context.

    x (B, T, D), context (B, S, D) -> (B, T, D). `context_mask` says which
    tokens of the context are real. With `caches`, one for each block, x holds
    the new tokens only.

    Raises:
        ValueError: no blocks, or not one cache for each block.

    Source: Vaswani et al. (2017), section 3.1.
    """

    def __init__(
        self, blocks: Iterable[nn.Module], norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.blocks, self.norm = nn.ModuleList(blocks), norm
        if not self.blocks:
            raise ValueError("Decoder: needs at least one block, got none.")

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        context: Float[Tensor, "B S Dc"],
        *,
        mask: Bool[Tensor, "..."] | None = None,
        context_mask: Bool[Tensor, "..."] | None = None,
        caches: Sequence[KVCache] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Read the past and the context, block after block."""
        caches = [None] * len(self.blocks) if caches is None else caches
        if len(caches) != len(self.blocks):
            raise ValueError(
                f"Decoder: needs one cache for each of its {len(self.blocks)} "
                f"blocks, got {len(caches)}."
            )
        options = dict(mask=mask, context_mask=context_mask, causal=True)
        for block, cache in zip(self.blocks, caches, strict=True):
            x = block(x, context, cache=cache, **options)
        return x if self.norm is None else self.norm(x)

    def recall(self, context: Float[Tensor, "B S Dc"]) -> "Decoder":
        """The same decoder, with keys and values of `context` at hand.

        It shares every weight. Its blocks cross-attend by `Recall`.
        """
        blocks = []
        for block in self.blocks:
            twin = Block(
                block.d_model,
                block.attn,
                block.ff,
                cross_attn=Recall(block.cross_attn, context),
                norm_first=block.norm_first,
                dropout=block.dropout,
            )
            twin.norm_attn, twin.norm_ff = block.norm_attn, block.norm_ff
            twin.norm_cross, twin.training = block.norm_cross, block.training
            blocks.append(twin)
        return Decoder(blocks, self.norm)
