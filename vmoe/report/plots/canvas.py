"""What all plots share: figures without global state, colours, axes, files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from vmoe.report.page import as_it_reads

COLORS = "cividis"  # even steps for the eye, with and without colour blindness
# As on a light page (page.css); `themed_svg` puts the page's own in their place.
INK, SOFT, LINE, PAPER = "#14171c", "#4a515c", "#c9cdd4", "#ffffff"
ON_DARK, ON_LIGHT = "#fefefe", "#010101"  # on coloured cells, which are the same on light and dark pages
# For lines and points, light and dark: Okabe and Ito's palette, apart with and without colour blindness, and for dark
# pages the same hues lighter. Their yellow, which white swallows, is left out.
SERIES = (
    *(("#0072b2", "#4fa8e0"), ("#d55e00", "#f58a3c"), ("#009e73", "#2cc59a"), ("#cc79a7", "#e6a3c8")),
    *(("#56b4e9", "#a5daff"), ("#e69f00", "#f7c14d"), (INK, PAPER)),
)
BLUE, VERMILION, *_ = (light for light, _ in SERIES)
DASHES: tuple[object, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (7, 1.6, 1.4, 1.6)))
MARKERS = "osD^vX"
MAX_LABEL = 40  # characters of a name
NARROW, WIDE = 7.2, 9.0  # inches: figures are about as wide as each other, and their letters as large
LOW, HIGH = 2.3, 14.0


def new_figure(width: float, height: float, *, square: bool = False) -> Figure:
    """A figure of that size in inches, which no window shows. square: for axes whose units are as wide as high."""
    return Figure(figsize=(width, height), layout="compressed" if square else "constrained")


def axes_of(ax: Axes | None, width: float, height: float, *, square: bool = False) -> Axes:
    """These axes, or those of a `new_figure` within limits."""
    return new_figure(min(width, WIDE), min(max(height, LOW), HIGH), square=square).add_subplot() if ax is None else ax


def save_png(ax: Axes, path: str | Path) -> Path:
    """Write the figure of these axes. Returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ax.figure.figure.savefig(path, format="png", dpi=150, pil_kwargs={"compress_level": 3})  # 6 takes twice as long
    return path


def readable(label: str, longest: int = MAX_LABEL) -> str:
    """A name in one line, which no character of it can hide, cut in its middle where it is too long."""
    line = " ".join(as_it_reads(str(label)).split())
    if len(line) <= longest:
        return line
    head = (longest - 1) // 2
    return f"{line[:head]}…{line[len(line) - (longest - 1 - head) :]}"


def dress(ax: Axes, *, title: str, xlabel: str = "", ylabel: str = "", grid: bool = False) -> None:
    """Title, labels and the look of all axes: no frame, no tick marks, colours that `themed_svg` knows."""
    ax.set_title(as_it_reads(title), fontsize=11, color=INK, parse_math=False)
    ax.set_xlabel(as_it_reads(xlabel), color=INK, parse_math=False)
    ax.set_ylabel(as_it_reads(ylabel), color=INK, parse_math=False)
    ax.tick_params(which="both", length=0, colors=INK)
    ax.spines[:].set_visible(False)
    ax.patch.set_visible(False)
    if grid:
        ax.grid(color=LINE, linewidth=0.6)
        ax.set_axisbelow(True)


def count_axis(axis: Axis, values: ArrayLike) -> None:
    """Ticks of steps or epochs: few, and thousands as k."""
    largest = largest_of(np.abs(np.asarray(values, dtype=float)))
    axis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10], integer=largest >= 5))
    if largest >= 10_000:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:g}k" if value else "0"))


def log_axis(axis: Axis, values: ArrayLike) -> None:
    """A logarithmic axis: ticks at powers of ten, between them at 2 and 5 where positive values span few of them, and
    at even steps where they span less than one.
    """
    found = np.asarray(values, dtype=float)
    found = found[np.isfinite(found) & (found > 0)]
    powers = float(np.log10(found.max() / found.min())) if len(found) else 0.0
    axis.axes.set_yscale("log")
    if 0 < powers < 1:
        axis.set_major_locator(MaxNLocator(nbins=5))
    else:
        axis.set_major_locator(LogLocator(subs=(1.0,) if powers > 3 else (1.0, 2.0, 5.0), numticks=7))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: power_of_ten(value)))


def power_of_ten(value: float) -> str:
    """A number as 0.05, or far from 1 as 5·10⁻⁷, without markup."""
    if value <= 0 or 1e-4 <= value < 1e5:
        return f"{value:g}"
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if float(mantissa) == 1 else f"{float(mantissa):g}·{power}"


def largest_of(values: NDArray[np.float64]) -> float:
    """The largest that is finite; 0 where none is or all are below."""
    return float(np.max(values, initial=0, where=np.isfinite(values)))


def array_of(name: str, values: ArrayLike, axes: Sequence[str]) -> NDArray[np.float64]:
    """As floats. Raises `ValueError` where it has other axes than these, or none of one."""
    array = np.asarray(values, dtype=float)
    if array.ndim != len(axes) or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; allowed: ({', '.join(axes)}), none of them 0")
    return array


def check_count(name: str, values: Sequence[object] | None, count: int, what: str) -> None:
    """Raises `ValueError` where there are others than count values; None is any number."""
    if values is not None and len(values) != count:
        raise ValueError(f"{name} has {len(values)} entries; allowed: {count}, {what}")
