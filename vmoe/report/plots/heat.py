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
MAX_GRID = 80  # rows or columns; with more, lines between them would hide them


def heat_map(
    ax: Axes, values_RC: NDArray[np.float64], largest: float, *, extent: tuple[float, float, float, float] | None = None
) -> AxesImage:
    """Cells, coloured from 0 to largest, with the page between them; not a number is the page itself."""
    rows, columns = values_RC.shape
    image = ax.imshow(
        values_RC, cmap=COLORS, norm=Normalize(0, largest), aspect="auto", interpolation="none", extent=extent
    )
    left, right, bottom, top = image.get_extent()  # lines, not a grid: its ticks take longer than all the rest
    if extent is None and 1 < columns <= MAX_GRID:
        between = np.arange(1, columns) - 0.5
        ax.vlines(between, bottom, top, color=PAPER, linewidth=1.0 if columns <= MAX_PRINTED else 0.3)
    if 1 < rows <= MAX_GRID:
        between = np.arange(1, rows) - 0.5
        ax.hlines(between, left, right, color=PAPER, linewidth=1.0 if rows <= 2 * MAX_PRINTED else 0.3)
    return image


def number_ticks(count: int) -> range:
    """Of so many experts those whose number stands at an axis."""
    return range(0, count, -(-count // MAX_TICKS))


def name_rows(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(list(range(len(names))), [readable(name) for name in names], parse_math=False)


def print_values(ax: Axes, values_RC: NDArray[np.float64], image: AxesImage, *, digits: int = 1) -> None:
    """Each cell's value in percent, in what is readable on its colour; nothing where cells are too narrow."""
    columns = values_RC.shape[1]
    if columns > MAX_PRINTED:
        return
    size = 8 if columns <= 12 else 6.5
    for (row, column), value in np.ndenumerate(values_RC):
        if np.isfinite(value):
            color = ON_LIGHT if value > 0.45 * image.get_clim()[1] else ON_DARK
            text = ax.text(column, row, f"{100 * value:.{digits}f}", ha="center", va="center", color=color)
            text.set(fontsize=size, in_layout=False)


def name_right(ax: Axes, labels: Sequence[str], title: str) -> None:
    """Something written at the right of each row."""
    right = ax.secondary_yaxis("right")
    right.set_yticks(list(range(len(labels))), list(labels))
    right.set_ylabel(title, color=SOFT)
    right.tick_params(length=0, colors=SOFT)
    right.spines[:].set_visible(False)


def entropy_text(value: float, least: float | None) -> str:
    """An entropy and the least that it could be, each a dash where it is not a number."""
    text = f"{value:.3f}" if np.isfinite(value) else "–"
    return text if least is None or not np.isfinite(least) else f"{text} (≥ {least:.2f})"


def color_bar(
    ax: Axes, image: AxesImage, label: str, ticks: Sequence[float], names: Sequence[str], *, more: bool = False
) -> Axes:
    """The bar beside the axes, with names at ticks. more: there are larger values. Returns its axes."""
    height = ax.get_position().height * ax.figure.figure.get_figheight()
    extend = "max" if more else "neither"
    bar = ax.figure.colorbar(
        image, ax=ax, pad=0.02, fraction=0.05, aspect=height / 0.13, label=label, extend=extend, extendfrac=0.04
    )
    bar.set_ticks(list(ticks), labels=list(names))
    assert bar.solids is not None
    bar.solids.set_visible(False)  # hundreds of shapes; a picture is one
    low, high = image.get_clim()
    norm = Normalize(low, high)
    ramp = np.linspace(high, low, 128)[:, None]
    bar.ax.imshow(ramp, cmap=COLORS, norm=norm, extent=(0, 1, low, high), aspect="auto", interpolation="none")
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


def percent_bar(ax: Axes, image: AxesImage, label: str, *, more: bool = False) -> None:
    """A colour bar in percent. more: as in `color_bar`."""
    largest = image.get_clim()[1]
    ticks = [0.0, largest / 2, largest]
    color_bar(ax, image, label, ticks, [f"{100 * tick:.3g}" for tick in ticks], more=more)
