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

NEAR, FAR = (9, 15, 24, 36), (52, 72, 96, 124)  # distances of labels from their points
ANGLES = np.deg2rad([90, 270, 135, 315, 45, 225, 180, 0])


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
    shows at least, so that noise does not look like a slope. ax: as in `expert_load`.
    """
    points_P2 = np.stack([array_of("values", values, ("points",)), _as_many("scores", scores, values)], axis=1)
    for name, given in [("labels", labels), ("spread", spread), ("highlighted", highlighted)]:
        check_count(name, given, len(points_P2), "one a point")
    if not np.isfinite(points_P2).all():
        raise ValueError("values or scores hold what is not finite; allowed: points that can be drawn")
    ax = axes_of(ax, 8.0, 5.0)
    if joined:
        ax.plot(*points_P2.T, color=BLUE, linewidth=1.5, alpha=0.5, zorder=1)
    texts = []
    for index, point in enumerate(points_P2.tolist()):
        marked = highlighted is not None and bool(highlighted[index])
        if spread is not None and spread[index] > 0:
            color = VERMILION if marked else BLUE
            ax.errorbar(*point, yerr=spread[index], fmt="none", ecolor=color, elinewidth=1.2, capsize=3, zorder=1)
        texts.append(_point(ax, point, readable(labels[index], 48), marked=marked))
    ax.margins(0.12, 0.2)
    low, high = ax.get_ylim()
    room = max(0.0, least_span - (high - low)) / 2
    ax.set_ylim(low - room, high + room)
    dress(ax, title=title, xlabel=xlabel, ylabel=ylabel, grid=True)
    _place(ax, texts, points_P2, joined=joined)
    return ax


def _as_many(name: str, scores: Sequence[float], values: Sequence[float]) -> NDArray[np.float64]:
    check_count(name, scores, len(values), "one a value")
    return array_of(name, scores, ("points",))


def _point(ax: Axes, point: Sequence[float], label: str, *, marked: bool) -> Annotation:
    """A point, and its label, which `_place` moves beside it."""
    color, marker, size = (VERMILION, "D", 70) if marked else (BLUE, "o", 45)
    x, y = point
    ax.scatter(x, y, s=size, color=color, marker=marker, edgecolor=PAPER, linewidth=1, zorder=2)
    text = ax.annotate(label, (x, y), (0, 0), textcoords="offset points", color=INK, parse_math=False)
    text.set(ha="center", va="center", fontsize=9, fontweight="bold" if marked else "normal")
    return text


def _place(ax: Axes, texts: Sequence[Annotation], points_P2: NDArray[np.float64], *, joined: bool) -> None:
    """Move each text beside its point, where it covers least of the points and of the texts before it.

    Where this is far from its point, a line leads there.
    """
    ax.figure.figure.draw_without_rendering()  # settles where the axes are
    pixels_P2 = ax.transData.transform(points_P2)
    steps = np.linspace(0, 1, 40)[:, None, None]
    between = (pixels_P2[:-1] * (1 - steps) + pixels_P2[1:] * steps).reshape(-1, 2)
    drawn = np.concatenate([pixels_P2, between]) if joined else pixels_P2
    frame, pixels_a_point = ax.get_window_extent(), ax.figure.figure.dpi / 72
    placed: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []

    def cost(low: NDArray[np.float64], high: NDArray[np.float64]) -> int:
        on_drawn = ((drawn > low) & (drawn < high)).all(axis=1).sum()
        on_texts = sum((low < other_high).all() and (other_low < high).all() for other_low, other_high in placed)
        outside = (low < frame.min).any() or (high > frame.max).any()
        return int(on_drawn) + 100 * int(on_texts) + 1000 * int(outside)

    for text, center in zip(texts, pixels_P2, strict=True):
        box = text.get_window_extent()
        half = np.array([box.width, box.height]) / 2
        inside = frame.min + half + 3, np.maximum(frame.max - half - 3, frame.min + half + 3)
        choices = []
        for gap in (*NEAR, *FAR):  # near places first: of equal ones the first is taken
            for angle in ANGLES:
                middle = center + np.array([np.cos(angle), np.sin(angle)]) * (half + gap * pixels_a_point)
                choices += [(middle, gap), (np.clip(middle, *inside), gap)]
        middle, gap = min(choices, key=lambda choice: cost(choice[0] - half - 2, choice[0] + half + 2))
        placed.append((middle - half - 2, middle + half + 2))
        text.set_position((middle - center) / pixels_a_point)
        if gap > NEAR[2]:
            _lead(ax, text, half / pixels_a_point)


def _lead(ax: Axes, text: Annotation, half: NDArray[np.float64]) -> None:
    """A line from the point to the edge of its text, which is half that wide and high, in points."""
    middle = np.asarray(text.get_position())
    end = middle * (1 - np.min(half / np.maximum(np.abs(middle), 1e-9)).clip(max=1))
    in_points = Affine2D().scale(1 / 72) + ax.figure.figure.dpi_scale_trans
    line = LineCollection([[(0, 0), end]], offsets=[text.xy], offset_transform=ax.transData, transform=in_points)
    line.set(color=SOFT, linewidth=0.7, zorder=1.5)
    ax.add_collection(line, autolim=False)
