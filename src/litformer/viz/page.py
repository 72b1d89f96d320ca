"""One style for all figures, and the SVG that a page can hold.

The style draws every line and letter in one ink. `show` replaces this ink by
the text colour of the page and leaves the ground transparent.
"""

import base64
import hashlib
import html
import io
import math
import re
import sys

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

# A colour that nothing else uses; `show` replaces it by the page's own ink.
INK = "#010203"
# Contrast of at least 3 to 1 on white and on the dark page alike, so each has
# a luminance between 0.13 and 0.30; the hues follow Okabe and Ito, whose set
# stays apart for colour-blind readers.
PALETTE = ("#0072b2", "#d55e00", "#00916a", "#b5569b", "#a07a00", "#77808c")
EDGE = "#8a93a0"  # thin lines around cells: seen on white and on black
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1)), (0, (1, 2)))
HATCHES = ("", "//", "--", "xx", "\\\\", "||")  # dots would weigh 20 kB each

STYLE = {
    **dict.fromkeys(
        (
            "text.color",
            "axes.edgecolor",
            "axes.labelcolor",
            "axes.titlecolor",
            "xtick.color",
            "ytick.color",
            "legend.labelcolor",
            "grid.color",
            "hatch.color",
            "patch.edgecolor",
        ),
        INK,
    ),
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "figure.figsize": (4.8, 3.0),
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: same anywhere
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "mathtext.fontset": "dejavusans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "grid.alpha": 0.15,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "hatch.linewidth": 0.7,
    "axes.prop_cycle": mpl.cycler(color=PALETTE),
}


def use_style() -> None:
    """Draw in the book's style from now on; for figures made by hand.

    The functions of this module use it anyway.
    """
    mpl.rcParams.update(STYLE)


class Picture:
    """An SVG that a notebook shows as a picture and a terminal as words."""

    def __init__(self, svg: str, alt: str) -> None:
        self.svg, self.alt = svg, alt

    def _repr_html_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"[Picture: {self.alt}]"


def show(fig: Figure, alt: str) -> Picture:
    """The figure as inline SVG that follows the page, with `alt` in words.

    The same figure gives the same text, byte for byte. Ids get a prefix made
    from the content, because all pictures of a page share one name space.

    Raises:
        ValueError: `alt` is empty.
    """
    if not alt.strip():
        raise ValueError(
            "show: alt is empty. Say in a sentence what the picture shows, "
            "for readers who cannot see it."
        )
    alt = " ".join(alt.split())
    buffer = io.StringIO()
    fixed = {"svg.fonttype": "none", "svg.hashsalt": "litformer"}
    with mpl.rc_context(fixed):
        fig.savefig(
            buffer,
            format="svg",
            bbox_inches="tight",
            pad_inches=0.03,
            metadata={"Date": None},
        )
    if "matplotlib.pyplot" in sys.modules:  # or a notebook shows it once more
        sys.modules["matplotlib.pyplot"].close(fig)
    return Picture(_page_svg(buffer.getvalue(), alt), alt)


def _page_svg(svg: str, alt: str) -> str:
    """Matplotlib's file, made fit for a page that holds several."""
    svg = svg[svg.index("<svg") :]
    # matplotlib's style sheet says `*`, which inline would mean the whole page
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.S)
    svg = re.sub(r"\s*<defs>\s*</defs>", "", svg)
    svg = svg.replace(INK, "currentColor")
    svg = _one_font(_short(_light(svg)))
    digest = hashlib.sha256((svg + alt).encode()).hexdigest()[:8]
    used = set(re.findall(r"(?:url\(#|href=\"#)([\w.-]+)", svg))
    svg = re.sub(
        r' id="([^"]*)"',
        lambda m: f' id="lf-{digest}-{m[1]}"' if m[1] in used else "",
        svg,
    )
    svg = re.sub(r'(url\(#|href="#)', rf"\1lf-{digest}-", svg)
    box = re.search(r'viewBox="[\d.]+ [\d.]+ ([\d.]+) [\d.]+"', svg)
    width = round(float(box[1]) * 4 / 3)  # points to CSS pixels
    head = (
        f'<svg class="lf-figure" role="img" aria-label="{html.escape(alt)}" '
        f'{box[0]} xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'style="display: block; width: 100%; max-width: {width}px; '
        "height: auto; margin: 0 auto; font-family: sans-serif; "
        'stroke-linejoin: round; stroke-linecap: butt">'
    )
    return re.sub(r"<svg.*?>", lambda _: head, svg, count=1, flags=re.S)


def _light(svg: str) -> str:
    """Photographs as WebP, a tenth of matplotlib's PNG, and drawn smoothly.

    Only images that `imshow(..., interpolation="none")` put in as they are
    (matplotlib marks them as pixelated); those of few pixels stay exact.
    """

    def lighter(match: re.Match) -> str:
        image = Image.open(io.BytesIO(base64.b64decode(match[2])))
        if max(image.size) <= 64:
            return match[0]
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "WEBP", quality=78, method=6)
        text = base64.b64encode(buffer.getvalue()).decode()
        head = re.sub(r'style="image-rendering:[^"]*"', "", match[1])
        tail = re.sub(r'style="image-rendering:[^"]*"', "", match[3])
        return f"{head}data:image/webp;base64,{text}{tail}"

    return re.sub(
        r'(<image [^>]*?)data:image/png;base64,([^"]+)("[^>]*?'
        r"image-rendering[^>]*>)",
        lighter,
        svg,
    )


def _short(svg: str) -> str:
    """The drawing with a hundredth of a point kept: half as long."""
    svg = re.sub(r' transform="rotate\(-?0 [^"]*"', "", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg).replace("> <", "><")
    return re.sub(
        r' (?:d|x|y|transform)="[^"]*"',
        lambda place: re.sub(
            r"-?\d+\.\d{3,}", lambda n: f"{float(n[0]):.2f}", place[0]
        ),
        svg,
    )


def _one_font(svg: str) -> str:
    """Leave the typeface to the root: one for the picture, on any machine."""
    svg = re.sub(r"\bfont-family: [^;\"]*(; )?", "", svg)
    return re.sub(r"\b(font: [^;\"]*?[\d.]+px) [^;\"]*", r"\1 sans-serif", svg)


def as_array(values) -> np.ndarray:
    """A tensor (any device, any dtype, with or without gradient) or a list."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if values.is_floating_point():
            values = values.float()
    return np.asarray(values)


def number_text(value: float, fmt: str) -> str:
    """The number for a cell, with a true minus sign."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return format(value, fmt).replace("-", "−")
