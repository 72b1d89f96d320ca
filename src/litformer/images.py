"""Real images that come with packages: nothing is fetched.

Handwritten digits from scikit-learn; photographs from scikit-image and
scikit-learn. All are tensors of floats from 0 to 1.

Axes: B images, C channels (red, green, blue), H rows, W columns of pixels.
"""

from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from litformer.shapes import check_shape

__all__ = ["PHOTOGRAPHS", "digits", "normalise", "photograph"]

# name -> the package that carries it
PHOTOGRAPHS = {
    "astronaut": "scikit-image",
    "chelsea": "scikit-image",
    "china": "scikit-learn",
    "coffee": "scikit-image",
    "flower": "scikit-learn",
    "rocket": "scikit-image",
}
# of the pixels of ImageNet: what nearly every vision model was trained with
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@cache
def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    return images, torch.tensor(found.target)


def digits() -> tuple[Float[Tensor, "1797 1 8 8"], Int[Tensor, "1797"]]:
    """Handwritten digits of 8 x 8 pixels, ink 1, and which digits they are.

    In the order of the file, in which neighbours may have one writer.

    Source: Alpaydin and Kaynak (1998), as carried by scikit-learn.
    """
    images, labels = _digits()
    return images.clone(), labels.clone()


def photograph(
    name: str, size: tuple[int, int] | None = None
) -> Float[Tensor, "3 H W"]:
    """A photograph, with `size` cut to that shape about its centre.

    It is first reduced as little as covers the size, with antialiasing.

    china (by danielbuechele) and flower (by vultilion) are under CC BY 2.0;
    the others are in the public domain or under CC0.

    Raises:
        ValueError: an unknown name, or a size below one pixel.
    """
    if name not in PHOTOGRAPHS:
        raise ValueError(
            f"photograph: no {name!r}. There are: {', '.join(PHOTOGRAPHS)}."
        )
    if PHOTOGRAPHS[name] == "scikit-image":
        from skimage import data

        pixels = getattr(data, name)()
    else:
        from sklearn.datasets import load_sample_image

        pixels = load_sample_image(f"{name}.jpg")
    image = torch.tensor(pixels.copy()).permute(2, 0, 1).float() / 255
    return image if size is None else _fit(image, size)


def _fit(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale until it covers the size, then cut off what is too much."""
    height, width = size
    if min(size) < 1:
        raise ValueError(f"photograph: size must be positive, got {size}.")
    scale = max(height / image.shape[1], width / image.shape[2])
    larger = [
        max(wanted, round(side * scale))
        for wanted, side in zip(size, image.shape[1:], strict=True)
    ]
    image = F.interpolate(
        image[None], size=larger, mode="bicubic", antialias=True
    )[0].clamp(0, 1)
    top, left = (larger[0] - height) // 2, (larger[1] - width) // 2
    return image[:, top : top + height, left : left + width]


def normalise(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Channels as pretrained models read them: mean 0, variance 1.

    The mean and the variance are those of ImageNet's pixels, not of these.

    Raises:
        ValueError: not three channels.
    """
    hint = "Red, green and blue; repeat a grey image three times."
    check_shape("normalise", "images", images, "B C H W", C=3, hint=hint)
    mean, std = (
        torch.tensor(v, dtype=images.dtype, device=images.device)
        for v in (_MEAN, _STD)
    )
    return (images - mean[:, None, None]) / std[:, None, None]
