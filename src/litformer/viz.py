"""Pictures that a page can hold: one inline SVG each, with words for it.

A plot cell of a chapter is one call, `viz.show(viz.heatmap(...), alt="...")`.
Functions that draw return a matplotlib `Figure`; `show` turns any figure into
SVG whose ink is the text colour of the page, so that one picture serves light
and dark mode, JupyterLab, Colab and the site. Nothing is told by colour alone:
lines differ in marker and dash, bars in hatching, a mask is filled or empty,
and cells carry their numbers.
"""

import hashlib
import html
import io
import math
import re
import sys
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

__all__ = [
    "INK",
    "PALETTE",
    "Picture",
    "attention_rows",
    "bars",
    "heatmap",
    "lines",
    "mask_grid",
    "plane",
    "show",
    "use_style",
]

# A colour that nothing else uses; `show` replaces it by the page's own ink.
INK = "#010203"
# Contrast of at least 3 to 1 on white and on the dark page alike, so each has
# a luminance between 0.13 and 0.30; the hues follow Okabe and Ito, whose set
# stays apart for colour-blind readers.
PALETTE = ("#0072b2", "#d55e00", "#00916a", "#b5569b", "#a07a00", "#77808c")
EDGE = "#8a93a0"  # thin lines around cells: seen on white and on black
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1)), (0, (1, 2)))
_HATCHES = ("", "//", "--", "xx", "\\\\", "||")  # dots would weigh 20 kB each
_WIDTH = 5.2  # inches of the widest figure: its text stays legible on a phone

# Light to dark, so that more is darker; both ends are seen in both schemes
# because every cell has an edge. The other map has its light end at zero.
_MORE = LinearSegmentedColormap.from_list(
    "more", ["#e9f1f9", "#9cc5e3", "#3f8fc6", "#0b5a97", "#062f59"]
)
_SIGNED = LinearSegmentedColormap.from_list(
    "signed", ["#8a3a00", "#e08a45", "#f4f1ec", "#5a9fd0", "#084c84"]
)

_STYLE = {
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
    mpl.rcParams.update(_STYLE)


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
    svg = _one_font(_short(svg))
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


def _array(values) -> np.ndarray:
    """A tensor (any device, any dtype, with or without gradient) or a list."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if values.is_floating_point():
            values = values.float()
    return np.asarray(values)


def _matrices(who: str, matrices, **axes) -> dict[str, np.ndarray]:
    """One matrix, or several by title, all checked against the labels."""
    if not isinstance(matrices, Mapping):
        matrices = {"": matrices}
    matrices = {title: _array(m) for title, m in matrices.items()}
    for title, m in matrices.items():
        label = f" {title!r}" if title else ""
        if m.ndim != 2:
            raise ValueError(
                f"{who}: the matrix{label} must have two axes, got shape "
                f"{m.shape}. Pick one batch and one head, as in w[0, 0]."
            )
        for (name, labels), size in zip(axes.items(), m.shape, strict=True):
            if labels is not None and len(labels) != size:
                raise ValueError(
                    f"{who}: the matrix{label} has {size} {name}, but "
                    f"{len(labels)} labels were given."
                )
    return matrices


def _panels(shape, n: int, cell: float, across: int | None, margin: float):
    """A row or grid of square-celled axes, no wider than a page."""
    height, width = shape
    cell = min(cell, (_WIDTH - margin) / width)
    each = width * cell + margin
    across = across or max(1, min(n, int(_WIDTH / each)))
    down = math.ceil(n / across)
    fig = Figure(figsize=(across * each, down * (height * cell + 0.75)))
    axes = fig.subplots(down, across, squeeze=False).ravel()
    for extra in axes[n:]:
        extra.remove()
    return fig, axes[:n]


def _label_cells(
    ax: Axes, shape, rows, cols, xlabel, ylabel, outer: bool, *, room: int = 4
):
    """Tokens along the top and the left, like the headings of a table."""
    height, width = shape
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal")
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    cols = range(width) if cols is None else cols
    rows = range(height) if rows is None else rows
    tilt = 90 if max(len(str(c)) for c in cols) > room else 0
    step_x, step_y = (1 + (size - 1) // 16 for size in (width, height))
    ax.set_xticks(range(0, width, step_x), cols[::step_x], rotation=tilt)
    ax.set_yticks(range(0, height, step_y), rows[::step_y] if outer else [])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel if outer else "")


def _margin(rows) -> float:
    """Inches that the row labels and the axis label take."""
    longest = max((len(str(r)) for r in rows), default=1) if rows else 2
    return 0.45 + 0.085 * longest


@mpl.rc_context(_STYLE)
def heatmap(
    matrix,
    rows: Sequence | None = None,
    cols: Sequence | None = None,
    *,
    title: str | None = None,
    xlabel: str = "key",
    ylabel: str = "query",
    annotate: bool = True,
    fmt: str = ".2f",
    vmin: float | None = None,
    vmax: float | None = None,
    signed: bool = False,
    across: int | None = None,
) -> Figure:
    """A matrix as coloured cells with their numbers; a dict gives several.

    More is darker. With `signed` zero is light, and the two signs differ in
    hue. A cell that is NaN or infinite has no colour and says so. Up to twelve
    columns carry numbers; a larger matrix gets a colour bar instead. Several
    matrices share one scale.

    Args:
        matrix: (T, S), or {title: (T, S)}.
        rows: labels of the rows, usually tokens.
        cols: labels of the columns.
        title: heading of a single matrix.
        xlabel: what the columns are.
        ylabel: what the rows are.
        annotate: write the numbers into the cells, if there is room.
        fmt: format of the numbers.
        vmin: value of the light end.
        vmax: value of the dark end.
        signed: a scale symmetric about zero.
        across: panels in a row; by default as many as the page holds.
    """
    panels = _matrices("heatmap", matrix, rows=rows, columns=cols)
    finite = np.concatenate([m[np.isfinite(m)] for m in panels.values()])
    if not finite.size:
        finite = np.zeros(1)
    low = finite.min() if vmin is None else vmin
    high = finite.max() if vmax is None else vmax
    if signed:
        high = max(abs(low), abs(high))
        low = -high
    norm = Normalize(low, high if high > low else low + 1)
    cmap = _SIGNED if signed else _MORE
    shape = next(iter(panels.values())).shape
    annotate = annotate and shape[1] <= 12
    fig, axes = _panels(
        shape, len(panels), 0.52 if annotate else 0.3, across, _margin(rows)
    )
    for i, (ax, (name, m)) in enumerate(zip(axes, panels.items(), strict=True)):
        per_row = len(axes) if across is None else across
        first = i % per_row == 0 or ax.get_subplotspec().is_first_col()
        _label_cells(ax, m.shape, rows, cols, xlabel, ylabel, first)
        ax.set_title(name or title or "")
        _cells(ax, m, norm, cmap, fmt if annotate else None)
    if not annotate:
        scale = mpl.cm.ScalarMappable(norm, cmap)
        bar = fig.colorbar(scale, ax=list(axes), shrink=0.8, pad=0.03)
        bar.outline.set(edgecolor=EDGE, linewidth=0.6)
    return fig


def _cells(ax: Axes, m: np.ndarray, norm, cmap: Colormap, fmt: str | None):
    """Draw the cells; beyond 32 in a row as an image, to keep pages small."""
    if max(m.shape) > 32:
        shown = np.ma.masked_invalid(m)
        ax.imshow(shown, norm=norm, cmap=cmap, interpolation="nearest")
        return
    for i, j in np.ndindex(m.shape):
        value = float(m[i, j])
        known = math.isfinite(value)
        color = cmap(norm(value)) if known else "none"
        ax.add_patch(
            Rectangle(
                (j - 0.5, i - 0.5),
                1,
                1,
                facecolor=color,
                edgecolor=EDGE,
                linewidth=0.6,
                hatch=None if known or fmt else "////",
            )
        )
        if fmt:
            ax.text(
                j,
                i,
                _number(value, fmt),
                ha="center",
                va="center",
                fontsize=9,
                fontweight="normal" if known else "bold",
                color=_ink_on(color) if known else INK,
            )


def _number(value: float, fmt: str) -> str:
    """The number for a cell, with a true minus sign."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return format(value, fmt).replace("-", "−")


def _ink_on(color) -> str:
    """Black or white, whichever stands out on `color` (at least 4.5 to 1).

    Cells keep their colour in dark mode, so their text must not follow ink.
    """
    return "#000000" if _luminance(color) > 0.179 else "#ffffff"


def _luminance(color) -> float:
    """Relative luminance as WCAG 2, the guideline for contrast, has it."""
    channels = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in mpl.colors.to_rgb(color)
    ]
    return float(np.dot((0.2126, 0.7152, 0.0722), channels))


@mpl.rc_context(_STYLE)
def mask_grid(
    mask,
    rows: Sequence | None = None,
    cols: Sequence | None = None,
    title: str | None = None,
    *,
    xlabel: str = "key",
    ylabel: str = "query",
    across: int | None = None,
) -> Figure:
    """The truth table of a mask: filled = may attend, empty = may not.

    Args:
        mask: bool (T, S), or {title: bool (T, S)} for several side by side.
        rows: labels of the queries.
        cols: labels of the keys.
        title: heading of a single mask.
        xlabel: what the columns are.
        ylabel: what the rows are.
        across: panels in a row; by default as many as the page holds.

    Raises:
        TypeError: a mask that is not bool.
        ValueError: a mask that is not a matrix.
    """
    panels = _matrices("mask_grid", mask, rows=rows, columns=cols)
    for m in panels.values():
        if m.dtype != bool:
            raise TypeError(
                f"mask_grid: mask must be bool with True = may attend, got "
                f"{m.dtype}. Draw numbers with heatmap."
            )
    shape = next(iter(panels.values())).shape
    fig, axes = _panels(shape, len(panels), 0.3, across, _margin(rows))
    for ax, (name, m) in zip(axes, panels.items(), strict=True):
        first = ax.get_subplotspec().is_first_col()
        labels = (rows, cols, xlabel, ylabel, first)
        _label_cells(ax, m.shape, *labels, room=3)  # the cells are small
        ax.set_title(name or title or "")
        for value, size, face in ((False, 0.88, "none"), (True, 0.88, None)):
            squares = [
                Rectangle((j - size / 2, i - size / 2), size, size)
                for i, j in np.argwhere(m == value)
            ]
            ax.add_collection(
                PatchCollection(
                    squares,
                    facecolor=face or PALETTE[0],
                    edgecolor=EDGE if face else PALETTE[0],
                    linewidth=0.7,
                )
            )
    fig.supxlabel("■ may attend    □ may not", fontsize=10)
    return fig


@mpl.rc_context(_STYLE)
def attention_rows(
    weights, queries: Sequence, keys: Sequence, *, title: str | None = None
) -> Figure:
    """Attention weights as bars: a row for each query, a column for each key.

    Heights are easier to compare than colours. Every row has the same scale,
    from 0 to the largest weight.

    Args:
        weights: (T, S).
        queries: labels of the rows.
        keys: labels of the columns.
        title: heading.
    """
    matrices = _matrices("attention_rows", weights, rows=queries, columns=keys)
    (w,) = matrices.values()
    top = max(float(np.nanmax(w)), 1e-9)
    fig = Figure(
        figsize=(
            min(_WIDTH, 0.55 * len(keys) + _margin(queries)),
            0.5 * len(queries) + 0.7,
        )
    )
    ax = fig.subplots()
    for i, row in enumerate(w):
        floor = len(w) - 1 - i
        ax.bar(range(len(row)), 0.6 * row / top, bottom=floor, width=0.7)
        ax.axhline(floor, color=INK, linewidth=0.6, alpha=0.5)
        for j, value in enumerate(row):
            ax.text(
                j,
                floor + 0.6 * value / top + 0.03,
                _number(float(value), ".2f"),
                ha="center",
                va="bottom",
                fontsize=8,
            )
    for patch in ax.patches:
        patch.set(facecolor=PALETTE[0], edgecolor="none")
    tilt = 90 if max(len(str(k)) for k in keys) > 5 else 0
    ax.set_xticks(range(len(keys)), keys, rotation=tilt)
    ax.set_yticks([len(w) - 0.75 - i for i in range(len(w))], queries)
    ax.set(xlabel="key", ylabel="query", title=title or "", ylim=(0, len(w)))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return fig


@mpl.rc_context(_STYLE)
def bars(
    labels: Sequence,
    series,
    *,
    xlabel: str = "",
    ylabel: str,
    title: str | None = None,
    fmt: str | None = ".2f",
    baselines: Mapping[str, float] | None = None,
) -> Figure:
    """Bars with their numbers; groups of bars if `series` is a dict.

    Args:
        labels: what each bar, or group of bars, is.
        series: heights, or {label: heights}.
        xlabel: what the labels are.
        ylabel: what the heights are, with the unit.
        title: heading.
        fmt: format of the numbers above the bars; None for no numbers.
        baselines: heights to compare with, {label: height}.
    """
    groups = series if isinstance(series, Mapping) else {"": series}
    fig = Figure()
    ax = fig.subplots()
    width = 0.8 / len(groups)
    for k, (name, values) in enumerate(groups.items()):
        values = _array(values)
        if values.shape != (len(labels),):
            raise ValueError(
                f"bars: {name or 'series'} must have one height for each of "
                f"the {len(labels)} labels, got shape {values.shape}."
            )
        at = np.arange(len(labels)) + (k - (len(groups) - 1) / 2) * width
        color = PALETTE[k % len(PALETTE)]
        drawn = ax.bar(
            at,
            values,
            width=0.92 * width,
            label=name,
            color=color,
            hatch=_HATCHES[k % len(_HATCHES)],
        )
        if fmt:
            texts = [_number(float(v), fmt) for v in values]
            ax.bar_label(drawn, texts, padding=2, fontsize=9)
    ax.set_xticks(range(len(labels)), labels)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.margins(y=0.12)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    _baselines(ax, baselines, outside=True)
    if len(groups) > 1:
        fig.legend(loc="outside upper center", ncols=min(3, len(groups)))
    ax.set_title(title or "")
    return fig


@mpl.rc_context(_STYLE)
def lines(
    x,
    curves: Mapping,
    *,
    xlabel: str,
    ylabel: str,
    title: str | None = None,
    logx: bool = False,
    logy: bool = False,
    base: int = 10,
    baselines: Mapping[str, float] | None = None,
    markers: bool | None = None,
) -> Figure:
    """Curves named at their right ends; a band shows the spread over seeds.

    Args:
        x: positions, shared by all curves.
        curves: {label: y} or {label: (mean, low, high)}.
        xlabel: what x is, with the unit.
        ylabel: what y is, with the unit.
        title: heading.
        logx: logarithmic x axis.
        logy: logarithmic y axis.
        base: of the logarithmic axes; 2 for powers of two.
        baselines: levels to compare with, {label: y}.
        markers: mark each point; by default up to 20 points are marked.
    """
    x = _array(x)
    fig = Figure()
    ax = fig.subplots()
    if logx:
        ax.set_xscale("log", base=base)
    if logy:
        ax.set_yscale("log", base=base)
    markers = len(x) <= 20 if markers is None else markers
    ends = []
    for k, (name, y) in enumerate(curves.items()):
        mean, *band = y if _is_band(y) else (y,)
        mean, *band = map(_array, (mean, *band))
        for values in (mean, *band):
            if values.shape != x.shape:
                raise ValueError(
                    f"lines: {name!r} must have one value for each of the "
                    f"{len(x)} positions, got shape {values.shape}."
                )
        color = PALETTE[k % len(PALETTE)]
        ax.plot(
            x,
            mean,
            color=color,
            linestyle=_DASHES[k % len(_DASHES)],
            marker=_MARKERS[k % len(_MARKERS)] if markers else None,
        )
        if band:
            ax.fill_between(x, *band, color=color, alpha=0.18, linewidth=0)
        ends.append((name, x[-1], mean[-1], color))
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title or "")
    ax.grid()
    _baselines(ax, baselines)
    _name_ends(ax, ends)
    return fig


def _is_band(y) -> bool:
    """True for (mean, low, high); a list of three numbers is a curve."""
    return isinstance(y, tuple) and len(y) == 3 and np.ndim(_array(y[0])) == 1


def _baselines(
    ax: Axes, baselines: Mapping[str, float] | None, *, outside: bool = False
) -> None:
    """Levels that a result must beat, as thin lines with their names.

    The names stand above the lines' left ends, or `outside` at the right.
    """
    for name, level in (baselines or {}).items():
        ax.axhline(level, color=INK, linewidth=1, linestyle=(0, (2, 2)))
        ax.annotate(
            name,
            (1 if outside else 0, level),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0 if outside else 3),
            textcoords="offset points",
            va="center" if outside else "bottom",
            fontsize=9,
        )


def _name_ends(ax: Axes, ends) -> None:
    """Write each curve's name beside its end, pushed apart where they meet."""
    if len(ends) == 1 and not ends[0][0]:
        return
    ax.figure.draw_without_rendering()  # settles the scales
    to_axes = ax.transData + ax.transAxes.inverted()
    places = [to_axes.transform((x, y))[1] for _, x, y, _ in ends]
    order = sorted(range(len(ends)), key=lambda i: places[i])
    gap = 14 / (ax.figure.get_figheight() * 72 * 0.72)
    spread = _push_apart([places[i] for i in order], gap)
    for i, place in zip(order, spread, strict=True):
        name, x, y, color = ends[i]
        ax.annotate(
            name,
            (x, y),
            xytext=(1.05, place),
            textcoords="axes fraction",
            va="center",
            fontsize=10,
            arrowprops=dict(
                arrowstyle="-", color=color, linewidth=0.8, shrinkA=2, shrinkB=4
            ),
        )


def _push_apart(places: list[float], gap: float) -> list[float]:
    """Ascending places, moved as little as needed to be `gap` apart."""
    groups: list[list[float]] = []  # [sum of the places, how many]
    for place in places:
        groups.append([place, 1])
        while len(groups) > 1:
            (a, n), (b, m) = groups[-2:]
            if b / m - a / n >= gap * (n + m) / 2:
                break
            groups[-2:] = [[a + b, n + m]]
    return [
        total / n + gap * (i - (n - 1) / 2)
        for total, n in groups
        for i in range(int(n))
    ]


@mpl.rc_context(_STYLE)
def plane(
    arrows: Mapping[str, Sequence],
    *,
    points: Mapping[str, Sequence] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    paths: Sequence = (),
    title: str | None = None,
    xlabel: str = "first component",
    ylabel: str = "second component",
) -> Figure:
    """Vectors of two components as named arrows from the origin.

    Args:
        arrows: {label: (x, y)}.
        points: {label: (x, y)}, drawn as marks instead of arrows.
        groups: {name: labels}; arrows of one group share colour and dash.
        paths: curves of shape (n, 2), drawn thin behind everything else.
        title: heading.
        xlabel: what the first component is.
        ylabel: what the second component is.
    """
    points = points or {}
    places = {
        n: _array(v).astype(float) for n, v in {**arrows, **points}.items()
    }
    for name, v in places.items():
        if v.shape != (2,):
            raise ValueError(
                f"plane: {name!r} must have two components, got shape "
                f"{v.shape}."
            )
    if groups is None:
        groups = {"": list(arrows)}
    kind = {n: k for k, names in enumerate(groups.values()) for n in names}
    fig = Figure(figsize=(4.2, 4.2))
    ax = fig.subplots()
    ax.axhline(0, color=INK, linewidth=0.6, alpha=0.5)
    ax.axvline(0, color=INK, linewidth=0.6, alpha=0.5)
    curves = [_array(path).astype(float) for path in paths]
    for k, curve in enumerate(curves):
        if curve.ndim != 2 or curve.shape[1] != 2:
            raise ValueError(
                f"plane: path {k} must have shape (n, 2), got {curve.shape}."
            )
        ax.plot(*curve.T, color=INK, linewidth=1.2, linestyle=_DASHES[k])
    for name, v in places.items():
        k = kind.get(name, len(groups)) % len(PALETTE)
        if name in arrows:
            ax.annotate(
                "",
                v,
                (0, 0),
                arrowprops=dict(
                    arrowstyle="-|>",
                    color=PALETTE[k],
                    linestyle=_DASHES[k],
                    linewidth=1.8,
                    shrinkA=0,
                    shrinkB=0,
                    mutation_scale=13,
                ),
            )
        else:
            ax.plot(*v, _MARKERS[k], color=PALETTE[k], markersize=7)
        side = 1 if v[0] >= 0 else -1
        ax.annotate(
            name,
            v,
            xytext=(5 * side, 5 if v[1] >= 0 else -5),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="bottom" if v[1] >= 0 else "top",
        )
    reach = np.concatenate([[(0.0, 0.0), *places.values()], *curves])
    low, high = reach.min(0), reach.max(0)
    pad = 0.15 * max(float((high - low).max()), 1e-9)
    ax.set(
        xlim=(low[0] - pad, high[0] + pad),
        ylim=(low[1] - pad, high[1] + pad),
        aspect="equal",
        xlabel=xlabel,
        ylabel=ylabel,
        title=title or "",
    )
    ax.grid()
    return fig
