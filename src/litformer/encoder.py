# Written in chapters/translation.md; edit it there, then run make export.
"""The encoder: a stack of blocks in which every token reads every other.

Axes: B batch, S source tokens, D d_model.
"""

from collections.abc import Iterable

from jaxtyping import Bool, Float
from torch import Tensor, nn

__all__ = ["Encoder"]


class Encoder(nn.Module):
    """Blocks one after another, and a last norm if they are pre-norm.

    x (B, S, D) -> (B, S, D). `mask` says which tokens are real, such as
    `padding_mask` gives it; it is the same in all blocks.

    Raises:
        ValueError: no blocks.

    Source: Vaswani et al. (2017), section 3.1.
    """

    def __init__(
        self, blocks: Iterable[nn.Module], norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.blocks, self.norm = nn.ModuleList(blocks), norm
        if not self.blocks:
            raise ValueError("Encoder: needs at least one block, got none.")

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        *,
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "B S D"]:
        """Let the tokens read each other, block after block."""
        for block in self.blocks:
            x = block(x, mask=mask)
        return x if self.norm is None else self.norm(x)
