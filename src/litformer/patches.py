# Written in chapters/vit.md; edit it there, then run make export.
"""Images become tokens: the cut into patches, and where each one stands.

Axes: B images, C channels, H and W rows and columns of pixels, P patches in
reading order, D d_model. Inside a patch numbers are ordered channel, row,
column, as in the kernel of a convolution.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from litformer.shapes import check_shape

__all__ = ["PatchEmbedding", "interpolate_positions", "patch_grid", "patchify"]


def patch_grid(
    who: str, height: int, width: int, patch_size: int
) -> tuple[int, int]:
    """Rows and columns of patches in an image, or why there are none.

    Raises:
        ValueError: a side that is no positive multiple of patch_size.
    """
    if patch_size < 1:
        raise ValueError(
            f"{who}: patch_size must be at least 1, got {patch_size}."
        )
    rows, cols = height // patch_size, width // patch_size
    if min(rows, cols) < 1 or height % patch_size or width % patch_size:
        near = [max(1, n) * patch_size for n in (rows, cols)]
        raise ValueError(
            f"{who}: the sides of an image must be multiples of patch_size="
            f"{patch_size}, got {height} x {width}. Crop or resize it, for "
            f"example to {near[0]} x {near[1]}."
        )
    return rows, cols


def patchify(
    images: Float[Tensor, "B C H W"], patch_size: int
) -> Float[Tensor, "B P width"]:
    """Cut images into squares, each flattened to C * patch_size**2 numbers.

    Raises:
        ValueError: a side that is no multiple of the patch.

    Source: Dosovitskiy et al. (2021), section 3.1.
    """
    sizes = check_shape("patchify", "images", images, "B C H W")
    patch_grid("patchify", sizes["H"], sizes["W"], patch_size)
    pattern = "b c (h p) (w q) -> b (h w) (c p q)"
    return rearrange(images, pattern, p=patch_size, q=patch_size)


class PatchEmbedding(nn.Module):
    """One linear map for every patch: a convolution with stride p.

    images (B, C, H, W) -> (B, P, D), for any H and W that the patch divides.

    Raises:
        ValueError: other channels, or sides that the patch does not divide.
        TypeError: pixels that are whole numbers.

    Source: Dosovitskiy et al. (2021), section 3.1.
    """

    def __init__(
        self, patch_size: int, d_model: int, *, channels: int = 3
    ) -> None:
        super().__init__()
        if min(patch_size, d_model, channels) < 1:
            raise ValueError(
                "PatchEmbedding: sizes must be at least 1, got patch_size="
                f"{patch_size}, d_model={d_model}, channels={channels}."
            )
        self.patch_size, self.channels = patch_size, channels
        self.proj = nn.Linear(channels * patch_size**2, d_model)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform weights, which keep variance; zero bias."""
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(
        self, images: Float[Tensor, "B C H W"]
    ) -> Float[Tensor, "B P D"]:
        """Cut and project."""
        hint = f"This model was built with channels={self.channels}."
        who, c = "PatchEmbedding", self.channels
        check_shape(who, "images", images, "B C H W", C=c, hint=hint)
        if not images.is_floating_point():
            raise TypeError(
                f"{who}: images must be floating point, got {images.dtype}. "
                "Divide bytes by 255, and normalise as in training."
            )
        return self.proj(patchify(images, self.patch_size))


def interpolate_positions(
    table: Float[Tensor, "T D"], old: tuple[int, int], new: tuple[int, int]
) -> Float[Tensor, "T2 D"]:
    """Position vectors for another grid of patches; the class token's stays.

    `old` and `new` are (rows, columns) of patches; the table has one row for
    the class token and then rows * columns of them, in reading order.
    Bicubic; the outer edges of both grids coincide, not the centres of their
    corner cells.

    Raises:
        ValueError: a table that is not for `old`.

    Source: Dosovitskiy et al. (2021), section 3.2; Oquab et al. (2024).
    """
    places = 1 + old[0] * old[1]
    hint = f"One row for the class token and one for each of {old} patches."
    check_shape(
        "interpolate_positions", "table", table, "T D", T=places, hint=hint
    )
    if min(new) < 1:
        raise ValueError(
            f"interpolate_positions: new must be at least 1 x 1, got {new}."
        )
    if old == new:
        return table
    grid = rearrange(table[1:], "(h w) d -> 1 d h w", h=old[0])
    wide = grid.to(torch.promote_types(table.dtype, torch.float32))
    grid = F.interpolate(wide, size=new, mode="bicubic", align_corners=False)
    rest = rearrange(grid, "1 d h w -> (h w) d").to(table.dtype)
    return torch.cat([table[:1], rest])
