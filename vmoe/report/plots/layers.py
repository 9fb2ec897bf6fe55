"""Layer by layer: how even routing is, and how many experts tokens activate.

Shapes: L layers, K numbers of experts: 0, 1, …, E.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from .canvas import BLUE, INK, LINE, NARROW, PAPER, array_of, axes_of, check_count, dress, largest_of
from .heat import entropy_text, heat_map, name_right, name_rows, number_ticks, percent_bar, print_values


def entropy_by_layer(
    entropy: Sequence[float],
    entropy_min: Sequence[float],
    layers: Sequence[str],
    ax: Axes | None = None,
    *,
    title: str = "",
) -> Axes:
    """A point a layer on a bar from the least entropy that its density allows to 1, which is even load.

    entropy, entropy_min: L values, normalised. layers: L names, first at the top. ax: as in `expert_load`.
    """
    values = array_of("entropy", entropy, ("layers",))
    check_count("entropy_min", entropy_min, len(values), "one a layer")
    check_count("layers", layers, len(values), "one a layer")
    least = array_of("entropy_min", entropy_min, ("layers",))
    rows = np.arange(len(values))
    ax = axes_of(ax, NARROW, 1.5 + 0.32 * len(values))
    ax.barh(rows, 1 - least, left=least, height=0.42, color=LINE, linewidth=0)
    ax.plot(values, rows, "o", color=BLUE, markersize=8, markeredgecolor=PAPER, markeredgewidth=1, clip_on=False)
    dress(ax, title=title, xlabel="normalised routing entropy (bar: from the least possible to even load)")
    ax.set_ylabel("MoE layer", color=INK)
    ax.grid(axis="x", color=LINE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_xlim(0, 1)
    ax.set_ylim(len(values) - 0.4, -0.6)
    name_rows(ax, layers)
    name_right(ax, list(map(entropy_text, values, least)), "entropy")
    return ax


def experts_per_token(share_LK: ArrayLike, layers: Sequence[str], ax: Axes | None = None, *, title: str = "") -> Axes:
    """Heat map of the share of each layer's tokens that activate 0, 1, …, E experts; their mean at the right.

    share_LK: rows sum to 1 and begin with the tokens without an expert. layers: L names. ax: as in `expert_load`.
    """
    share = array_of("share_LK", share_LK, ("layers", "experts + 1"))
    check_count("layers", layers, len(share), "one a row of share_LK")
    num_layers, bins = share.shape
    ax = axes_of(ax, max(4.6 + 0.46 * bins, NARROW), 1.7 + 0.36 * num_layers)
    image = heat_map(ax, share, max(largest_of(share), 0.01))
    dress(ax, title=title, xlabel="number of active experts", ylabel="MoE layer")
    ax.set_xticks(number_ticks(bins))
    name_rows(ax, layers)
    print_values(ax, share, image)
    mean = share @ np.arange(bins)
    name_right(ax, [f"{value:.2f}" for value in mean], "mean number")
    percent_bar(ax, image, "tokens (%)")
    return ax
