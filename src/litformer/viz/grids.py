"""Matrices, cell by cell: weights, scores, masks."""

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle

from litformer.viz.page import EDGE, INK, PALETTE, STYLE, as_array, number_text

_WIDTH = 5.2  # inches of the widest figure: its text stays legible on a phone

# Light to dark, so that more is darker; both ends are seen in both schemes
# because every cell has an edge. The other map has its light end at zero.
_MORE = LinearSegmentedColormap.from_list(
    "more", ["#e9f1f9", "#9cc5e3", "#3f8fc6", "#0b5a97", "#062f59"]
)
_SIGNED = LinearSegmentedColormap.from_list(
    "signed", ["#8a3a00", "#e08a45", "#f4f1ec", "#5a9fd0", "#084c84"]
)


def _matrices(who: str, matrices, **axes) -> dict[str, np.ndarray]:
    """One matrix, or several by title, all checked against the labels."""
    if not isinstance(matrices, Mapping):
        matrices = {"": matrices}
    matrices = {title: as_array(m) for title, m in matrices.items()}
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
    """A row or grid of square-celled axes, no wider than a page.

    Cells shrink to make room, not letters: a phone scales the picture down.
    The side of a cell, in inches, comes with the figure and the axes.
    """
    height, width = shape
    gap = 0.2  # inches between panels; only the first has labels on its left
    if across is None:
        across = int((_WIDTH - margin) / (width * cell + gap))
    across = min(n, max(1, across))
    room = _WIDTH - margin - (across - 1) * gap
    cell = min(cell, room / (across * width))
    down = math.ceil(n / across)
    size = (
        margin + across * width * cell + (across - 1) * gap,
        down * (height * cell + 0.75),
    )
    fig = Figure(figsize=size)
    axes = fig.subplots(down, across, squeeze=False).ravel()
    for extra in axes[n:]:
        extra.remove()
    return fig, axes[:n], cell


def _label_cells(
    ax: Axes,
    shape,
    rows,
    cols,
    xlabel,
    ylabel,
    outer: bool,
    *,
    cell: float,
    room: int = 4,
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
    step_y = max(step_y, math.ceil(0.17 / cell))  # a line of text needs that
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


@mpl.rc_context(STYLE)
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
    fig, axes, cell = _panels(
        shape, len(panels), 0.52 if annotate else 0.3, across, _margin(rows)
    )
    longest = max(len(number_text(float(v), fmt)) for v in finite)
    size = min(9.0, 72 * 0.95 * cell / (0.58 * longest))  # a digit is 0.58 wide
    for i, (ax, (name, m)) in enumerate(zip(axes, panels.items(), strict=True)):
        per_row = len(axes) if across is None else across
        first = i % per_row == 0 or ax.get_subplotspec().is_first_col()
        labels = (rows, cols, xlabel, ylabel, first)
        _label_cells(ax, m.shape, *labels, cell=cell)
        ax.set_title(name or title or "")
        _cells(ax, m, norm, cmap, fmt if annotate else None, size)
    if not annotate:
        scale = mpl.cm.ScalarMappable(norm, cmap)
        bar = fig.colorbar(scale, ax=list(axes), shrink=0.8, pad=0.03)
        bar.outline.set(edgecolor=EDGE, linewidth=0.6)
    return fig


def _cells(
    ax: Axes, m: np.ndarray, norm, cmap: Colormap, fmt: str | None, size: float
):
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
                number_text(value, fmt),
                ha="center",
                va="center",
                fontsize=size,
                fontweight="normal" if known else "bold",
                color=_ink_on(color) if known else INK,
            )


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


@mpl.rc_context(STYLE)
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
    fig, axes, cell = _panels(shape, len(panels), 0.3, across, _margin(rows))
    for ax, (name, m) in zip(axes, panels.items(), strict=True):
        first = ax.get_subplotspec().is_first_col()
        labels = (rows, cols, xlabel, ylabel, first)
        # the cells are small
        _label_cells(ax, m.shape, *labels, cell=cell, room=3)
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


@mpl.rc_context(STYLE)
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
                number_text(float(value), ".2f"),
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


@mpl.rc_context(STYLE)
def clocks(
    angles,
    rows: Sequence | None = None,
    cols: Sequence | None = None,
    *,
    title: str | None = None,
) -> Figure:
    """Angles as the hands of clocks: zero is up, and they grow clockwise.

    Args:
        angles: (rows, columns), in radians.
        rows: labels of the rows, such as places.
        cols: labels of the columns, such as speeds.
        title: heading.
    """
    (hands,) = _matrices("clocks", angles, rows=rows, columns=cols).values()
    height, width = hands.shape
    longest = max((len(str(r)) for r in rows or [""]), default=0)
    margin = 0.3 + 0.085 * longest
    cell = min(0.85, (_WIDTH - margin) / width)
    fig = Figure(figsize=(width * cell + margin, height * cell + 0.5))
    ax = fig.subplots()
    for (i, j), angle in np.ndenumerate(hands):
        dial = Circle((j, i), 0.4, facecolor="none", edgecolor=EDGE)
        dial.set_linewidth(0.8)
        ax.add_patch(dial)
        ax.plot([j, j], [i - 0.4, i - 0.34], color=EDGE, linewidth=0.8)
        ax.plot(
            [j, j + 0.34 * np.sin(angle)],
            [i, i - 0.34 * np.cos(angle)],
            color=PALETTE[j % len(PALETTE)],
            linewidth=2,
        )
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5), aspect="equal")
    ax.xaxis.tick_top()
    ax.set_xticks(range(width), cols or [""] * width, fontsize=9)
    ax.set_yticks(range(height), rows or [""] * height)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_title(title or "")
    return fig
