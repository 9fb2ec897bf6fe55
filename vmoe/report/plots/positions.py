"""Where in an image experts work.

Shapes: H rows and W columns of patches, E experts.
"""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from numpy.typing import ArrayLike

from .canvas import COLORS, INK, WIDE, array_of, axes_of, dress, largest_of
from .heat import percent_bar

GAP = 0.12  # between maps, of a map's width
HEAD = 0.24  # above a map, for its name


def position_load(load_HWE: ArrayLike, ax: Axes | None = None, *, title: str = "") -> Axes:
    """For each expert a heat map over the image's patches, on one scale.

    load_HWE: share of the tokens at a position that each expert serves. ax: as in `expert_load`.
    """
    load = array_of("load_HWE", load_HWE, ("rows", "columns", "experts"))
    height, width, num_experts = load.shape
    columns = min(num_experts, 8 if num_experts > 12 else 4 if num_experts > 3 else num_experts)
    rows = math.ceil(num_experts / columns)
    across, down = 1 + GAP, height / width + HEAD
    unit = min(1.05, (WIDE - 1.2) / (columns * across), 12 / (rows * down))  # inches
    ax = axes_of(ax, 1.2 + unit * columns * across, 0.5 + unit * rows * down, square=True)
    norm = Normalize(0, max(largest_of(load), 1e-9))
    for expert in range(num_experts):
        left, top = expert % columns * across, expert // columns * down + HEAD
        extent = (left, left + 1, top + height / width, top)
        image = ax.imshow(load[:, :, expert], cmap=COLORS, norm=norm, interpolation="none", extent=extent)
        name = f"expert {expert}" if columns <= 4 else str(expert)
        ax.text(left + 0.5, top - 0.04, name, ha="center", va="bottom", color=INK, fontsize=8)
    ax.set_xlim(0, columns * across - GAP)
    ax.set_ylim(rows * down, 0)
    dress(ax, title=title)
    ax.set_axis_off()
    percent_bar(ax, image, "tokens at the position (%)")
    return ax
