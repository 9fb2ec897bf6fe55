"""What heat maps share: cells, the numbers on them, the bar that explains their colours.

Shapes: R rows, C columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from .canvas import COLORS, INK, ON_DARK, ON_LIGHT, PAPER, SOFT, readable

MAX_PRINTED = 16  # columns; with more, cells are too narrow for their value
MAX_TICKS = 16
MAX_GRID = 130


def heat_map(
    ax: Axes, values_RC: NDArray[np.float64], largest: float, *, extent: Sequence[float] | None = None
) -> AxesImage:
    """Cells, coloured from 0 to largest, with the page between them; not a number is the page itself."""
    rows, columns = values_RC.shape
    image = ax.imshow(
        values_RC, cmap=COLORS, norm=Normalize(0, largest), aspect="auto", interpolation="none", extent=extent
    )
    wide = 1.0 if columns <= MAX_PRINTED else 0.4
    if extent is None and columns <= MAX_GRID:
        ax.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
        ax.grid(which="minor", axis="x", color=PAPER, linewidth=wide)
    if rows <= MAX_GRID:
        ax.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
        ax.grid(which="minor", axis="y", color=PAPER, linewidth=1.0 if rows <= 2 * MAX_PRINTED else 0.4)
    return image


def number_ticks(count: int) -> range:
    """Of so many experts those whose number stands at an axis."""
    return range(0, count, -(-count // MAX_TICKS))


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), [readable(name) for name in names], parse_math=False)


def print_values(ax: Axes, image: AxesImage, factor: float = 100, digits: int = 1) -> None:
    """Each cell's value times factor, in what is readable on its colour; nothing where cells are too narrow."""
    values = image.get_array()
    if values.shape[1] > MAX_PRINTED:
        return
    for (row, column), value in np.ndenumerate(values.filled(np.nan)):
        if np.isfinite(value):
            color = ON_LIGHT if image.norm(value) > 0.45 else ON_DARK
            text = f"{factor * value:.{digits}f}"
            ax.text(column, row, text, ha="center", va="center", color=color, fontsize=8)


def name_right(ax: Axes, labels: Sequence[str], title: str) -> None:
    """Something written at the right of each row."""
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(len(labels)), labels)
    right.set_ylabel(title, color=SOFT)
    right.tick_params(length=0, colors=SOFT)
    right.spines[:].set_visible(False)


def color_bar(ax: Axes, image: AxesImage, label: str, ticks: Sequence[float], names: Sequence[str]) -> Axes:
    """The bar beside the axes, with names at ticks. Returns its axes."""
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, fraction=0.05, label=label)
    bar.set_ticks(ticks, labels=names)
    bar.solids.set_visible(False)  # hundreds of shapes; a picture is one
    low, high = image.get_clim()
    ramp = np.linspace(high, low, 128)[:, None]
    bar.ax.imshow(ramp, cmap=image.cmap, norm=image.norm, extent=(0, 1, low, high), aspect="auto")
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, colors=INK)
    bar.ax.yaxis.label.set_color(INK)
    return bar.ax


def fair_bar(ax: Axes, image: AxesImage, fair: float, label: str) -> None:
    """A colour bar in percent with the fair share marked."""
    largest = image.get_clim()[1]
    ticks = [0.0, fair, largest] if largest < 3 * fair else [0.0, fair, (fair + largest) / 2, largest]
    names = [f"{100 * tick:.3g}" for tick in ticks]
    names[1] += " fair (1/E)"
    color_bar(ax, image, label, ticks, names).axhline(fair, color=ON_DARK, linewidth=2)


def percent_bar(ax: Axes, image: AxesImage, label: str) -> None:
    """A colour bar in percent."""
    largest = image.get_clim()[1]
    ticks = [0.0, largest / 2, largest]
    color_bar(ax, image, label, ticks, [f"{100 * tick:.3g}" for tick in ticks])
