"""Curves, bars, and vectors in the plane."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from litformer.viz.page import (
    DASHES,
    HATCHES,
    INK,
    MARKERS,
    PALETTE,
    STYLE,
    as_array,
    number_text,
)


@mpl.rc_context(STYLE)
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
        values = as_array(values)
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
            hatch=HATCHES[k % len(HATCHES)],
        )
        if fmt:
            texts = [number_text(float(v), fmt) for v in values]
            ax.bar_label(drawn, texts, padding=2, fontsize=9)
    ax.set_xticks(range(len(labels)), _in_slots(labels, fig.get_figwidth()))
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.margins(y=0.12)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    _levels(ax, baselines)
    _name_levels(ax, baselines, outside=True)
    if len(groups) > 1:
        fig.legend(loc="outside upper center", ncols=min(3, len(groups)))
    ax.set_title(title or "")
    return fig


def _in_slots(labels: Sequence, width: float) -> list[str]:
    """Labels on several lines where one line would run into the next label."""
    slot = 0.8 * width * 72 / max(len(labels), 1)  # points; 0.8 is the axes
    letters = max(int(slot / 5.6), 1)
    names = [str(label) for label in labels]
    return [
        n if "\n" in n else textwrap.fill(n, letters, break_long_words=False)
        for n in names
    ]


@mpl.rc_context(STYLE)
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
    marks: Mapping[str, float] | None = None,
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
        marks: places that mean something, {label: x}, as upright lines.
        markers: mark each point; by default up to 20 points are marked.
    """
    x = as_array(x)
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
        mean, *band = map(as_array, (mean, *band))
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
            linestyle=DASHES[k % len(DASHES)],
            marker=MARKERS[k % len(MARKERS)] if markers else None,
        )
        if band:
            ax.fill_between(x, *band, color=color, alpha=0.18, linewidth=0)
        ends.append((name, x[-1], mean[-1], color))
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title or "")
    ax.grid()
    for name, place in (marks or {}).items():
        ax.axvline(place, color=INK, linewidth=1, linestyle=(0, (2, 2)))
        ax.annotate(
            name,
            (place, 1),
            xycoords=("data", "axes fraction"),
            xytext=(3, 2),
            textcoords="offset points",
            fontsize=9,
        )
    _levels(ax, baselines)
    _name_levels(ax, baselines)
    _name_ends(ax, ends)
    return fig


def _is_band(y) -> bool:
    """True for (mean, low, high); a list of three numbers is a curve."""
    return isinstance(y, tuple) and len(y) == 3 and np.ndim(as_array(y[0])) == 1


def _levels(ax: Axes, baselines: Mapping[str, float] | None) -> None:
    """Levels that a result must beat, as thin lines."""
    for level in (baselines or {}).values():
        ax.axhline(level, color=INK, linewidth=1, linestyle=(0, (2, 2)))


def _name_levels(
    ax: Axes, baselines: Mapping[str, float] | None, *, outside: bool = False
) -> None:
    """Write each level's name at its right, `outside` the axes or inside.

    Inside, it stands at the end and on the side where least is in its way.
    """
    ax.figure.draw_without_rendering()  # settles the scales
    taken: list[Bbox] = []
    for name, level in (baselines or {}).items():
        text = ax.annotate(
            name,
            (1, level),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
        if outside:
            continue
        places = [
            (va, ha) for va in ("bottom", "top") for ha in ("left", "right")
        ]
        crowd = []
        for place in places:
            _put(text, *place)
            crowd.append(_crowd(ax, text.get_window_extent(), taken))
        _put(text, *places[int(np.argmin(crowd))])
        taken.append(text.get_window_extent())


def _put(text: Annotation, va: str, ha: str) -> None:
    """Move a level's name above or below its line, to the left or right end."""
    text.xy = (0 if ha == "left" else 1, text.xy[1])
    text.set(
        va=va,
        ha=ha,
        position=(4 if ha == "left" else -4, 3 if va == "bottom" else -3),
    )


def _crowd(ax: Axes, box: Bbox, taken: Sequence[Bbox]) -> int:
    """How much is in the way in `box`: curves, other names, the border."""
    xs = np.linspace(box.x0, box.x1, 25)
    crossed = 0
    for line in ax.lines:
        x, y = line.get_transform().transform(line.get_xydata()).T
        ys = np.interp(xs, x, y, left=np.nan, right=np.nan)
        crossed += int(((ys > box.y0 - 1) & (ys < box.y1 + 1)).sum())
    over = sum(box.overlaps(other) for other in taken)
    inside = ax.bbox.y0 <= box.y0 and box.y1 <= ax.bbox.y1 + 6
    return crossed + len(xs) * (over + (not inside))


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


@mpl.rc_context(STYLE)
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
        n: as_array(v).astype(float) for n, v in {**arrows, **points}.items()
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
    curves = [as_array(path).astype(float) for path in paths]
    for k, curve in enumerate(curves):
        if curve.ndim != 2 or curve.shape[1] != 2:
            raise ValueError(
                f"plane: path {k} must have shape (n, 2), got {curve.shape}."
            )
        ax.plot(*curve.T, color=INK, linewidth=1.2, linestyle=DASHES[k])
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
                    linestyle=DASHES[k],
                    linewidth=1.8,
                    shrinkA=0,
                    shrinkB=0,
                    mutation_scale=13,
                ),
            )
        else:
            ax.plot(*v, MARKERS[k], color=PALETTE[k], markersize=7)
        ax.annotate(name, v, xytext=(0, 0), textcoords="offset points")
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
    tails = [np.stack([0 * places[n], places[n]]) for n in arrows]
    strokes = [_dense(stroke) for stroke in [*curves, *tails]]
    _make_room(ax, [*strokes, np.array([*places.values()]).reshape(-1, 2)])
    return fig


def _dense(stroke: np.ndarray, n: int = 400) -> np.ndarray:
    """Points close together along a curve."""
    at = np.linspace(0, len(stroke) - 1, n)
    whole = np.arange(len(stroke))
    return np.stack([np.interp(at, whole, part) for part in stroke.T], 1)


def _beside(text: Annotation, x: int, y: int) -> None:
    """Put a name to the left (x = -1) or right of its point, below or above."""
    gap = 5 if x and y else 8  # the mark reaches further straight ahead
    text.set(
        position=(gap * x, gap * y),
        ha=("right", "center", "left")[x + 1],
        va=("top", "center", "bottom")[y + 1],
    )


def _make_room(ax: Axes, strokes: Sequence[np.ndarray]) -> None:
    """Names away from the origin, from strokes and each other; all inside.

    A stroke is a curve or an arrow, as points (n, 2) in data coordinates.
    """
    texts = [text for text in ax.texts if text.get_text()]
    for _ in range(5 if texts else 0):  # each round moves the names less
        ax.figure.draw_without_rendering()
        drawn = ax.transData.transform(np.concatenate(strokes))
        taken: list[Bbox] = []
        for text in texts:
            x, y = (1 if part >= 0 else -1 for part in text.xy)
            places = [(x, y), (x, -y), (-x, y), (-x, -y)]
            places += [(x, 0), (0, y), (-x, 0), (0, -y)]
            crowd = []
            for place in places:
                _beside(text, *place)
                box = text.get_window_extent()
                hit = int(box.count_contains(drawn))
                over = sum(box.overlaps(other) for other in taken)
                crowd.append(hit + len(drawn) * over)
            _beside(text, *places[int(np.argmin(crowd))])
            taken.append(text.get_window_extent())
        corners = ax.transData.inverted().transform(
            [corner for box in taken for corner in (box.min, box.max)]
        )
        x, y = np.concatenate(
            [corners, [*zip(ax.get_xlim(), ax.get_ylim(), strict=True)]]
        ).T
        ax.set(xlim=(x.min(), x.max()), ylim=(y.min(), y.max()))
