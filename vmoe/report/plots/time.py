"""How routing develops while a run trains.

Shapes: M moments, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from .canvas import NARROW, SERIES, SOFT, array_of, axes_of, check_count, count_axis, dress, largest_of, log_axis
from .heat import fair_bar, heat_map, number_ticks
from .lines import curves, draw_line, legend_above

STEPS = "optimizer step"
COLUMNS = 600  # of a heat map over time: more than are seen


def dynamics(
    steps: Sequence[float],
    density: Sequence[float],
    coefficient: Sequence[float] | None = None,
    ax: Axes | None = None,
    *,
    title: str = "",
    target_density: float | None = None,
    entropy: Sequence[float] | None = None,
) -> Axes:
    """Density ρ of active pairs over training and, on a logarithmic axis at the right, the λ that steers it.

    steps, density, coefficient, entropy: M values. coefficient: None for gates without a controller; where it is not
    positive it is a gap. entropy: of the routing, normalised, on density's axis. ax: as in `expert_load`.
    """
    x = array_of("steps", steps, ("moments",))
    for name, values in [("density", density), ("coefficient", coefficient), ("entropy", entropy)]:
        check_count(name, values, len(x), "one a step")
    ax = axes_of(ax, NARROW, 3.8)
    dress(ax, title=title, xlabel=STEPS, ylabel="density ρ" if entropy is None else "density ρ, entropy", grid=True)
    blue, vermilion, green = (light for light, _ in SERIES[:3])
    found = [(draw_line(ax, x, _gaps(density), color=blue, marker="o", clip_on=False), "density ρ")]
    if target_density is not None:
        target = ax.axhline(target_density, color=SOFT, linewidth=1.2, linestyle=(0, (1.2, 1.4)))
        found.append((target, f"target ρ = {target_density:.3g}"))
    if entropy is not None:
        dashes = (0, (7, 1.6, 1.4, 1.6))
        line = draw_line(ax, x, _gaps(entropy), color=green, linestyle=dashes, marker="D", clip_on=False)
        found.append((line, "routing entropy"))
    ax.set_ylim(0, 1.0 if entropy is not None else None)
    ax.margins(x=0.02)
    count_axis(ax.xaxis, x)
    strength = _gaps([] if coefficient is None else coefficient, positive=True)
    if np.isfinite(strength).any():
        right = ax.twinx()
        dress(right, title="", ylabel="coefficient λ (log scale)")
        line = draw_line(right, x, strength, color=vermilion, linestyle=(0, (5, 1.6)), marker="s")
        log_axis(right.yaxis, strength)
        right.margins(x=0.02)
        found.append((line, "coefficient λ (right)"))
    handles, labels = zip(*found, strict=True)
    legend_above(ax, handles, labels)
    return ax


def load_over_time(load_ME: ArrayLike, steps: Sequence[float], ax: Axes | None = None, *, title: str = "") -> Axes:
    """Heat map of one layer: the share of the active pairs that each expert took, over optimizer steps.

    A moment's colours fill the steps since the moment before. The colour bar is that of `expert_load`.

    load_ME: rows sum to 1. steps: M, ascending. ax: as in `expert_load`.
    """
    load = array_of("load_ME", load_ME, ("moments", "experts"))
    check_count("steps", steps, len(load), "one a row of load_ME")
    x = np.asarray(steps, dtype=float)
    if not np.isfinite(x).all() or (np.diff(x) <= 0).any():
        raise ValueError(f"steps are {x.tolist()[:8]}; allowed: finite, each larger than the one before")
    num_experts = load.shape[1]
    ax = axes_of(ax, NARROW, min(1.9 + 0.22 * num_experts, 6.5))
    first = max(x[0] - (x[1] - x[0]), min(x[0] - 1, 0)) if len(x) > 1 else min(x[0] - 1, 0)
    edges = np.array([first, *x])
    if len(np.unique(np.diff(edges).round(6))) > 1 or len(x) > COLUMNS:  # columns of equal width show any distances
        width = (edges[-1] - first) / COLUMNS
        load = load[np.searchsorted(x, first + width * (np.arange(COLUMNS) + 0.5)).clip(max=len(x) - 1)]
    fair = 1 / num_experts
    extent = (first, x[-1], num_experts - 0.5, -0.5)
    image = heat_map(ax, load.T, max(largest_of(load), 2 * fair), extent=extent)
    dress(ax, title=title, xlabel=STEPS, ylabel="expert")
    ax.set_yticks(number_ticks(num_experts))
    count_axis(ax.xaxis, edges)
    fair_bar(ax, image, fair, "load (% of pairs)")
    return ax


def stability(
    steps: Sequence[float], changed: Mapping[str, Sequence[float]], ax: Axes | None = None, *, title: str = ""
) -> Axes:
    """Of each layer the share of the probe's tokens whose experts differ from those of the evaluation before.

    steps: of M evaluations. changed: by layer M shares, not a number where there is none. ax: as in `expert_load`.
    """
    for layer, shares in changed.items():
        check_count(f"changed[{layer!r}]", shares, len(steps), "one a step")
    series = {layer: (steps, (100 * _gaps(shares)).tolist()) for layer, shares in changed.items()}
    few = len(changed) <= 6
    ax = curves(series, ax, title=title, xlabel=STEPS, ylabel="tokens whose experts changed (%)", markers=few)
    ax.set_ylim(bottom=0)
    for line in ax.lines:
        line.set_clip_on(False)  # one at 0 is as thick as others
    return ax


def _gaps(values: Sequence[float | None], *, positive: bool = False) -> NDArray[np.float64]:
    """With not a number for None and, where asked, for what a logarithmic axis cannot show."""
    array = np.array([np.nan if value is None else value for value in values], dtype=float)
    return np.where(array > 0, array, np.nan) if positive else array
