"""Which experts are active together.

Shapes: E experts.
"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from .canvas import array_of, axes_of, dress, largest_of
from .heat import heat_map, number_ticks, percent_bar, print_values


def co_activation(share_EE: ArrayLike, ax: Axes | None = None, *, title: str = "") -> Axes:
    """Heat map of the share of tokens that activate both of two experts; on the diagonal those that activate the one.

    The scale is that of the pairs, which are rarer, at least down to a quarter of the diagonal's largest share.

    share_EE: symmetric. ax: as in `expert_load`.
    """
    share = array_of("share_EE", share_EE, ("experts", "experts"))
    if share.shape[0] != share.shape[1]:
        raise ValueError(f"share_EE has shape {share.shape}; allowed: as many rows as columns")
    num_experts = len(share)
    side = min(max(2.0 + 0.4 * num_experts, 3.2), 7.0)
    ax = axes_of(ax, side + 1.2, side, square=True)
    of_pairs, of_all = largest_of(share[~np.eye(num_experts, dtype=bool)]), largest_of(share)
    image = heat_map(ax, share, max(of_pairs, of_all / 4 if num_experts > 1 else of_all, 1e-6))
    ax.set_aspect("equal")
    dress(ax, title=title, xlabel="expert", ylabel="expert")
    ax.set_xticks(number_ticks(num_experts))
    ax.set_yticks(number_ticks(num_experts))
    print_values(ax, share, image)
    percent_bar(ax, image, "tokens that activate both (%)", more=of_all > image.get_clim()[1])
    return ax
