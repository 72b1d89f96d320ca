# Written in chapters/multi_head.md; edit it there, then run make export.
"""Keys and values of the past, kept so that nobody computes them again.

Axes: B batch, G key heads, T new tokens, S all tokens so far, Dh head width.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from litformer.shapes import check_shape

__all__ = ["KVCache"]


class KVCache:
    """The keys and values of one attention layer, one token after another.

    `update` appends and returns all so far; `len` counts the tokens;
    `reorder` follows a search that keeps some rows of the batch. It grows by
    copying, which is simple and quadratic in the length.

    Raises:
        ValueError: keys that do not fit those that are kept.

    Source: Shazeer (2019), section 2.4.
    """

    def __init__(self) -> None:
        self.k: Tensor | None = None
        self.v: Tensor | None = None

    def __len__(self) -> int:
        return 0 if self.k is None else self.k.shape[2]

    def update(
        self, k: Float[Tensor, "B G T Dh"], v: Float[Tensor, "B G T Dv"]
    ) -> tuple[Float[Tensor, "B G S Dh"], Float[Tensor, "B G S Dv"]]:
        """Append the new keys and values; return all of them."""
        sizes = check_shape("KVCache", "k", k, "B G T Dh")
        check_shape("KVCache", "v", v, "B G T Dv", **sizes)
        if self.k is not None:
            b, g, s, dh = self.k.shape
            kept = dict(B=b, G=g, Dh=dh, Dv=self.v.shape[3])
            hint = f"{s} tokens are kept. A new text, a new cache."
            check_shape("KVCache", "k", k, "B G T Dh", hint=hint, **kept)
            check_shape("KVCache", "v", v, "B G T Dv", hint=hint, **kept)
            k, v = torch.cat([self.k, k], 2), torch.cat([self.v, v], 2)
        self.k, self.v = k, v
        return k, v

    def reorder(self, rows: Int[Tensor, "B2"]) -> None:
        """Keep these rows of the batch, in this order."""
        if self.k is not None:
            self.k, self.v = self.k[rows], self.v[rows]
