"""Lines: labelled series over steps or epochs, alone or with a band around each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from .canvas import DASHES, MARKERS, NARROW, SERIES, SOFT, axes_of, count_axis, dress, log_axis, readable

MAX_SERIES = len(SERIES) * len(DASHES)
ROWS = 14  # of a legend's column
Values = NDArray[np.float64]
Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]
Bands = Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[float], Sequence[float]]]


def curves(
    series: Series,
    ax: Axes | None = None,
    *,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    log: bool = False,
    markers: bool = False,
) -> Axes:
    """A line for each series, apart in colour and dashes; the legend stands beside the axes.

    series: by their labels x and y, of equal length; what is not finite, or with log not positive, is a gap.
    ax: as in `expert_load`. log: of the y axis. markers: on every point; a point without neighbours has one anyway.
    """
    lines = {label: _arrays(label, values, ("x", "y")) for label, values in series.items()}
    return _draw({label: (x, y, None) for label, (x, y) in lines.items()}, ax, title, xlabel, ylabel, log, markers)


def band(
    series: Bands,
    ax: Axes | None = None,
    *,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    log: bool = False,
    markers: bool = False,
) -> Axes:
    """As `curves`, with a shaded band around each line, such as the spread of seeds around their mean.

    series: by their labels x, mean, low and high, of equal length.
    """
    lines = {label: _arrays(label, values, ("x", "mean", "low", "high")) for label, values in series.items()}
    full = {label: (x, mean, (low, high)) for label, (x, mean, low, high) in lines.items()}
    return _draw(full, ax, title, xlabel, ylabel, log, markers)


def style_of(index: int) -> dict[str, Any]:
    """Colour, dashes and marker of the series of that number; of `MAX_SERIES` no two share colour and dashes."""
    return {
        "color": SERIES[index % len(SERIES)][0],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def draw_line(ax: Axes, x: Values, y: Values, *, markers: bool = False, **style: Any) -> Line2D:
    """A line with markers on each point, or on those alone that no line reaches."""
    drawn = np.isfinite(x) & np.isfinite(y)
    beside = np.pad(drawn, 1)
    alone = drawn & ~beside[:-2] & ~beside[2:]
    where = np.flatnonzero(drawn if markers else alone)
    shape = {"markersize": 5, "markeredgewidth": 0, "linewidth": 1.7, **style}
    if not len(where):
        shape.pop("marker", None)
    (line,) = ax.plot(x, np.where(drawn, y, np.nan), markevery=where.tolist() or None, **shape)
    return line


def legend_above(ax: Axes, handles: Sequence[Line2D], labels: Sequence[str]) -> None:
    """A legend in a row between the title and the axes."""
    ax.set_title(ax.get_title(), fontsize=11, pad=24)
    ax.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(labels), frameon=False, fontsize=9,
        borderaxespad=0.3, borderpad=0.2, handlelength=2.4, columnspacing=1.4,
    )  # fmt: skip


def _arrays(label: str, values: Sequence[Sequence[float]], names: Sequence[str]) -> list[Values]:
    if len(values) != len(names):
        raise ValueError(f"series {label!r} has {len(values)} parts; allowed: {', '.join(names)}")
    arrays = [np.asarray([np.nan if one is None else one for one in value], dtype=float) for value in values]
    lengths = [array.shape for array in arrays]
    if len(set(lengths)) != 1 or arrays[0].ndim != 1:
        sizes = ", ".join(f"{name} {shape}" for name, shape in zip(names, lengths, strict=True))
        raise ValueError(f"series {label!r} has shapes {sizes}; allowed: one axis, of equal length")
    return arrays


def _draw(
    lines: Mapping[str, tuple[Values, Values, tuple[Values, Values] | None]],
    ax: Axes | None,
    title: str,
    xlabel: str,
    ylabel: str,
    log: bool,
    markers: bool,
) -> Axes:
    if not 0 < len(lines) <= MAX_SERIES:
        raise ValueError(f"series has {len(lines)} entries; allowed: 1 to {MAX_SERIES}")
    names = [readable(label, 36) for label in lines]
    columns = -(-len(lines) // ROWS)
    ax = axes_of(ax, max(5.4 + (0.6 + 0.07 * max(map(len, names))) * columns, NARROW), 3.8)
    dress(ax, title=title, xlabel=xlabel, ylabel=ylabel, grid=True)
    handles = []
    for index, (x, y, around) in enumerate(lines.values()):
        if log:
            y = np.where(y > 0, y, np.nan)
        style = style_of(index)
        if around is not None:
            low, high = (np.where(edge > 0, edge, np.nan) if log else edge for edge in around)
            ax.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)
        handles.append(draw_line(ax, x, y, markers=markers, **style))
    shown = [(handle, name) for handle, name in zip(handles, names, strict=True) if name]
    if shown:
        place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "ncols": columns}
        _legend(ax, shown, **place)
    _scale(ax, lines.values(), log)
    return ax


def _legend(ax: Axes, shown: Iterable[tuple[Line2D, str]], **place: Any) -> None:
    handles, names = zip(*shown, strict=True)
    legend = ax.legend(handles, names, frameon=False, fontsize=9, handlelength=2.8, borderaxespad=0, **place)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _scale(ax: Axes, lines: Iterable[tuple[Values, Values, object]], log: bool) -> None:
    x, y = (np.concatenate(parts) for parts in zip(*((x, y) for x, y, _ in lines), strict=True))
    count_axis(ax.xaxis, x)
    positive = np.isfinite(x) & np.isfinite(y) & ((y > 0) | (not log))
    if not positive.any():
        ax.text(0.5, 0.5, "no finite value", ha="center", va="center", color=SOFT, transform=ax.transAxes)
        ax.set(xticks=[], yticks=[])
    elif log:
        log_axis(ax.yaxis, y[positive])
    ax.margins(x=0.02)
