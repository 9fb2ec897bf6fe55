"""What all plots share: figures without global state, colours, files."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = "cividis"  # even steps for the eye, with and without colour blindness
GREY = "0.35"
BLUE, VERMILION = "#0072B2", "#D55E00"  # of Okabe and Ito's palette: apart with and without colour blindness


def new_figure(width: float, height: float) -> Figure:
    """A figure of that size in inches, which no window shows."""
    return Figure(figsize=(width, height), layout="constrained")


def save_png(ax: Axes, path: Path) -> Path:
    """Write the figure of these axes. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert isinstance(ax.figure, Figure)
    ax.figure.savefig(path, format="png", dpi=150)
    return path
