# Written in chapters/vit.md; edit it there, then run make export.
"""Random changes of images that leave their meaning alone.

Axes: B images, C channels, H and W rows and columns of pixels.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from litformer.shapes import check_shape

__all__ = ["random_affine"]


def random_affine(
    images: Float[Tensor, "B C H W"],
    *,
    degrees: float = 10.0,
    shift: float = 0.06,
    zoom: float = 0.1,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B C H W"]:
    """Turn, move and zoom each image by amounts of its own.

    Up to `degrees` either way, up to `shift` of each side, and by factors
    from 1 - zoom to 1 + zoom. What comes in from outside is zero.

    Raises:
        ValueError: a negative amount, or a zoom of 1 or more.
    """
    b, _, h, w = check_shape(
        "random_affine", "images", images, "B C H W"
    ).values()
    if min(degrees, shift, zoom) < 0 or zoom >= 1:
        raise ValueError(
            "random_affine: degrees and shift must be 0 or more and zoom in "
            f"[0, 1), got {degrees}, {shift} and {zoom}."
        )
    drawn = torch.rand(4, b, generator=generator).to(images) * 2 - 1
    angle = drawn[0] * math.radians(degrees)
    factor = 1 / (1 + drawn[1] * zoom)
    cos, sin = factor * angle.cos(), factor * angle.sin()
    # grid_sample measures both sides from -1 to 1, whatever their lengths
    rows = [
        torch.stack([cos, -sin * h / w, 2 * shift * drawn[2]], dim=1),
        torch.stack([sin * w / h, cos, 2 * shift * drawn[3]], dim=1),
    ]
    theta = torch.stack(rows, dim=1)  # from places in the result to the source
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)
