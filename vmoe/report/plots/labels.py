"""Which experts serve which labels.

Shapes: C labels, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from .canvas import NARROW, array_of, axes_of, check_count, dress, largest_of
from .heat import fair_bar, heat_map, name_rows, number_ticks, print_values

MAX_PRINTED_ROWS = 20


def label_load(
    load_CE: ArrayLike,
    labels: Sequence[str],
    ax: Axes | None = None,
    *,
    title: str = "",
    most: int = 40,
) -> Axes:
    """Heat map of the share of each label's active pairs that each expert takes.

    Labels stand by their favourite expert, its strongest first. Of more than most, those with the most uneven load.

    load_CE: rows sum to 1, or are 0 where a label has no pair. labels: C names. ax: as in `expert_load`.
    """
    load = np.nan_to_num(array_of("load_CE", load_CE, ("labels", "experts")))
    check_count("labels", labels, len(load), "one a row of load_CE")
    if most < 1:
        raise ValueError(f"most is {most}; allowed: at least 1")
    unevenness = (load**2).sum(axis=1)
    shown = np.argsort(-unevenness, kind="stable")[:most]
    strength = load.max(axis=1)
    favourite = np.where(strength > 0, load.argmax(axis=1), load.shape[1])  # labels without a pair stand last
    order = shown[np.lexsort((shown, -strength[shown], favourite[shown]))]
    num_experts = load.shape[1]
    ax = axes_of(ax, max(4.6 + 0.34 * num_experts, NARROW), 1.7 + 0.21 * len(order))
    fair = 1 / num_experts
    image = heat_map(ax, load[order], max(largest_of(load[order]), 2 * fair))
    if len(order) <= MAX_PRINTED_ROWS:
        print_values(ax, load[order], image, digits=0)
    all_shown = len(order) == len(load)
    ylabel = "label" if all_shown else f"label (the {len(order)} most uneven of {len(load)})"
    dress(ax, title=title, xlabel="expert", ylabel=ylabel)
    ax.set_xticks(number_ticks(num_experts))
    name_rows(ax, [labels[row] for row in order])
    ax.tick_params(axis="y", labelsize=8)
    fair_bar(ax, image, fair, "load (% of the label's pairs)")
    return ax
