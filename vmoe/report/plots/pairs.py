"""Which experts are active together.

Shapes: E experts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from .canvas import array_of, axes_of, dress
from .heat import heat_map, number_ticks, percent_bar, print_values


def co_activation(share_EE: Sequence[Sequence[float]], ax: Axes | None = None, *, title: str = "") -> Axes:
    """Heat map of the share of tokens that activate both of two experts; on the diagonal those that activate the one.

    share_EE: symmetric. ax: as in `expert_load`.
    """
    share = array_of("share_EE", share_EE, ("experts", "experts"))
    if share.shape[0] != share.shape[1]:
        raise ValueError(f"share_EE has shape {share.shape}; allowed: as many rows as columns")
    num_experts = len(share)
    side = min(max(2.4 + 0.4 * num_experts, 3.6), 7.5)
    ax = axes_of(ax, side + 1.2, side)
    image = heat_map(ax, share, max(float(np.nanmax(share)), 1e-9))
    ax.set_aspect("equal")
    dress(ax, title=title, xlabel="expert", ylabel="expert")
    ax.set_xticks(number_ticks(num_experts))
    ax.set_yticks(number_ticks(num_experts))
    print_values(ax, image)
    percent_bar(ax, image, "tokens that activate both (%)")
    return ax
