"""Labelled points: a score against what it costs.

Shapes: P points.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.text import Annotation
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray

from .canvas import BLUE, INK, PAPER, SOFT, VERMILION, array_of, axes_of, check_count, dress, readable
from .placement import places

LEAST_WIDTH = 0.05  # of an axis, as a part of its largest value


def score_against(
    values: Sequence[float],
    scores: Sequence[float],
    labels: Sequence[str],
    ax: Axes | None = None,
    *,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    spread: Sequence[float] | None = None,
    highlighted: Sequence[bool] | None = None,
    joined: bool = False,
    least_span: float = 0.0,
) -> Axes:
    """Points with their labels, which stand where they cover neither points nor each other.

    values, scores, labels: P of each. spread: of each score, drawn as a bar up and down; 0 or not a number is none.
    highlighted: which points are vermilion diamonds. joined: by a line. least_span: how much of the scores the axis
    shows at least, so that noise does not look like a slope; of the values it shows a twentieth of the largest, so that
    equal costs look equal. ax: as in `expert_load`.
    """
    points_P2 = np.stack([array_of("values", values, ("points",)), _as_many("scores", scores, values)], axis=1)
    for name, given in [("labels", labels), ("spread", spread), ("highlighted", highlighted)]:
        check_count(name, given, len(points_P2), "one a point")
    if not np.isfinite(points_P2).all():
        raise ValueError("values or scores hold what is not finite; allowed: points that can be drawn")
    ax = axes_of(ax, 8.0, 5.0)
    drawn = [points_P2]
    if joined:
        ax.plot(*points_P2.T, color=BLUE, linewidth=1.5, alpha=0.5, zorder=1)
        drawn += [_between(points_P2[:-1], points_P2[1:])]
    texts = []
    for index, point in enumerate(points_P2):
        marked = highlighted is not None and bool(highlighted[index])
        if spread is not None and spread[index] > 0:
            (x, y), color, reach = point, VERMILION if marked else BLUE, np.array([0, spread[index]])
            ax.errorbar(x, y, yerr=reach[1], fmt="none", ecolor=color, elinewidth=1.2, capsize=3, zorder=1)
            drawn += [_between(point - reach, point + reach)]
        texts.append(_point(ax, point, readable(labels[index], 48), marked=marked))
    everything = np.concatenate(drawn)
    ax.set_xlim(*_with_room(everything[:, 0], 0.12, LEAST_WIDTH * float(abs(everything[:, 0]).max())))
    ax.set_ylim(*_with_room(everything[:, 1], 0.2, least_span))
    dress(ax, title=title, xlabel=xlabel, ylabel=ylabel, grid=True)
    _place(ax, texts, points_P2, everything)
    return ax


def _with_room(values: NDArray[np.float64], margin: float, least: float) -> tuple[float, float]:
    """Limits of an axis with the values between margins, which are parts of their span; least: of the axis."""
    low, high = float(values.min()), float(values.max())
    span = max((1 + 2 * margin) * (high - low), least) or 0.1 * abs(high) or 1.0
    return (low + high - span) / 2, (low + high + span) / 2


def _between(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points along the lines from the first to the second."""
    share = np.linspace(0, 1, 40).reshape(-1, *[1] * first.ndim)
    return (first * (1 - share) + second * share).reshape(-1, 2)


def _as_many(name: str, scores: Sequence[float], values: Sequence[float]) -> NDArray[np.float64]:
    check_count(name, scores, len(values), "one a value")
    return array_of(name, scores, ("points",))


def _point(ax: Axes, point: NDArray[np.float64], label: str, *, marked: bool) -> Annotation:
    """A point, and its label, which `_place` moves beside it."""
    color, marker, size = (VERMILION, "D", 70) if marked else (BLUE, "o", 45)
    x, y = point
    ax.scatter(x, y, s=size, color=color, marker=marker, edgecolor=PAPER, linewidth=1, zorder=2)
    text = ax.annotate(label, (x, y), (0, 0), textcoords="offset points", color=INK, parse_math=False)
    text.set(ha="center", va="center", fontsize=9, fontweight="bold" if marked else "normal")
    return text


def _place(
    ax: Axes, texts: Sequence[Annotation], points_P2: NDArray[np.float64], drawn_D2: NDArray[np.float64]
) -> None:
    """Move each text to its place beside its point, and draw a line between them where it needs one."""
    ax.figure.figure.draw_without_rendering()  # settles where the axes are
    scale = ax.figure.figure.dpi / 72  # pixels a point of type
    frame, extents = ax.get_window_extent(), [text.get_window_extent() for text in texts]
    halves_P2 = np.array([(extent.width / 2, extent.height / 2) for extent in extents])
    pixels_P2, drawn_D2 = ax.transData.transform(points_P2), ax.transData.transform(drawn_D2)
    found = places(pixels_P2, halves_P2, drawn_D2, np.array([frame.min, frame.max]), scale)
    for text, half, place in zip(texts, halves_P2, found, strict=True):
        x, y = place.offset / scale
        text.set_position((x, y))
        if place.line:
            _lead(ax, text, half / scale)


def _lead(ax: Axes, text: Annotation, half: NDArray[np.float64]) -> None:
    """A line from the point to the edge of its text, which is half that wide and high, in points."""
    middle = np.asarray(text.get_position())
    end = middle * (1 - np.min(half / np.maximum(np.abs(middle), 1e-9)).clip(max=1))
    in_points = Affine2D().scale(1 / 72) + ax.figure.figure.dpi_scale_trans
    line = LineCollection([[(0, 0), end]], offsets=[text.xy], offset_transform=ax.transData, transform=in_points)
    line.set(color=SOFT, linewidth=0.7, zorder=1.5)
    ax.add_collection(line, autolim=False)
