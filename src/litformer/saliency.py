# Written in chapters/vit.md; edit it there, then run make export.
"""From patch tokens to a map of what stands out.

Axes: B images, D d_model, P patches, T = 1 + P tokens with the class token
first, H and W pixels of the map.
"""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from litformer.shapes import check_shape

__all__ = ["SaliencyDecoder"]


class SaliencyDecoder(nn.Module):
    """Tokens (B, T, D) of a grid of patches to a map (B, 1, H, W) from 0 to 1.

    Each of `widths` doubles the sides of the grid; the result is stretched
    to the wanted size. The class token is not read.

    Raises:
        ValueError: tokens that do not fill the grid.

    Source: the decoder of img-focus 0.1.1.
    """

    def __init__(
        self, d_model: int, *, widths: tuple[int, ...] = (256, 128, 64)
    ) -> None:
        super().__init__()
        self.d_model = d_model
        layers: list[nn.Module] = []
        for before, width in zip((d_model, *widths), widths, strict=False):
            layers += [
                nn.ConvTranspose2d(before, width, 4, stride=2, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
        last = widths[-1] if widths else d_model
        self.layers = nn.Sequential(*layers, nn.Conv2d(last, 1, 1))

    def forward(
        self,
        tokens: Float[Tensor, "B T D"],
        grid: tuple[int, int],
        size: tuple[int, int],
    ) -> Float[Tensor, "B 1 H W"]:
        """`grid` is rows and columns of patches, `size` those of pixels."""
        places = 1 + grid[0] * grid[1]
        hint = f"A class token and {grid[0]} x {grid[1]} patches."
        axes = dict(T=places, D=self.d_model)
        who = "SaliencyDecoder"
        check_shape(who, "tokens", tokens, "B T D", hint=hint, **axes)
        x = rearrange(tokens[:, 1:], "b (h w) d -> b d h w", h=grid[0])
        x = F.interpolate(
            self.layers(x), size=size, mode="bilinear", align_corners=False
        )
        return x.sigmoid()
