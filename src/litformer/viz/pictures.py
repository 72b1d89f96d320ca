"""Images on a page: photographs, digits, and maps laid over them."""

import math
from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from litformer.viz.page import EDGE, STYLE, as_array

_WIDTH = 5.2  # inches of the widest figure, as for grids


@mpl.rc_context(STYLE)
def pictures(
    images, *, across: int | None = None, high: float | None = None
) -> Figure:
    """Images side by side; small ones with square pixels.

    Args:
        images: (C, H, W) with three channels, or (H, W) from white (0) to
            black (1); values outside 0 to 1 are cut. A dict gives several,
            {title: image}.
        across: images in a row; by default up to four.
        high: inches of height of each, instead of filling the width.

    Raises:
        ValueError: a shape that is none of these.
    """
    if not isinstance(images, Mapping):
        images = {"": images}
    shown = {
        title: _pixels("pictures", image) for title, image in images.items()
    }
    across = min(len(shown), across or 4)
    down = math.ceil(len(shown) / across)
    gap = 0.08
    shape = next(iter(shown.values())).shape
    width = (_WIDTH - (across - 1) * gap) / across
    if high is not None:
        width = min(width, high * shape[1] / shape[0])
    title = 0.26 if any(shown) else 0.0
    fig = Figure(
        figsize=(
            across * width + (across - 1) * gap,
            down * (width * shape[0] / shape[1] + title + gap),
        )
    )
    axes = fig.subplots(down, across, squeeze=False).ravel()
    for extra in axes[len(shown) :]:
        extra.remove()
    for ax, (name, pixels) in zip(axes, shown.items(), strict=False):
        # "none" puts the pixels as they are into the file
        ax.imshow(pixels, interpolation="none")
        ax.set_title(name, fontsize=10, fontweight="normal", pad=3)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, edgecolor=EDGE, linewidth=0.6)
    return fig


def overlay(
    image, heat, *, low: float | None = None, high: float | None = None
):
    """An image under a map: bright where the map is high, dark where low.

    The map (h, w) may be coarser: it is stretched over the image, smoothly.
    Its 2nd and 99th percentile become the two ends, unless given.

    Returns:
        (3, H, W), values from 0 to 1, for `pictures`.

    Raises:
        ValueError: shapes that are no image and no map.
    """
    pixels = _pixels("overlay", image)
    heat = as_array(heat).astype(float)
    if heat.ndim != 2:
        raise ValueError(
            f"overlay: heat must have two axes, got shape {heat.shape}."
        )
    low = np.percentile(heat, 2) if low is None else low
    high = np.percentile(heat, 99) if high is None else high
    heat = np.clip((heat - low) / max(high - low, 1e-12), 0, 1)
    heat = _stretch(heat, pixels.shape[:2])
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    colour = mpl.colormaps["inferno"](heat)[..., :3]
    # the map gives colour, the image keeps its light and shade
    mixed = colour * (0.5 + 0.5 * grey[..., None])
    return (0.7 * mixed + 0.3 * pixels).transpose(2, 0, 1)


def _stretch(grid: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear, the centres of the cells at the centres of their areas."""
    for axis, wanted in enumerate(size):
        n = grid.shape[axis]
        at = np.clip((np.arange(wanted) + 0.5) * n / wanted - 0.5, 0, n - 1)
        below = np.floor(at).astype(int)
        above = np.minimum(below + 1, n - 1)
        part = at - below
        part = part[:, None] if axis == 0 else part[None]
        grid = (
            grid.take(below, axis) * (1 - part) + grid.take(above, axis) * part
        )
    return grid


def _pixels(who: str, image) -> np.ndarray:
    """(H, W, 3) of 0 to 1, whatever came."""
    image = as_array(image).astype(float)
    if image.ndim == 3 and image.shape[0] == 1:
        image = image[0]
    if image.ndim == 2:  # ink: more is darker
        image = np.repeat(1 - image[None], 3, axis=0)
    if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise ValueError(
            f"{who}: an image must have shape (3, H, W) or (H, W), got "
            f"{image.shape}. Pick one of a batch, as in images[0]."
        )
    return np.clip(image, 0, 1).transpose(1, 2, 0)
