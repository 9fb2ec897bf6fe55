"""Expert load: who gets how much of the work, layer by layer.

Shapes: L layers, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from vmoe.report.runs import Run, parse_result, read_run

from .canvas import INK, NARROW, SOFT, array_of, axes_of, check_count, dress, largest_of, readable, save_png
from .heat import entropy_text, fair_bar, heat_map, name_right, name_rows, number_ticks, print_values


def expert_load(
    load_LE: ArrayLike,
    layers: Sequence[str],
    ax: Axes | None = None,
    *,
    title: str = "",
    entropy: Sequence[float] | None = None,
    entropy_min: Sequence[float] | None = None,
    what: str = "load (% of pairs)",
) -> Axes:
    """Heat map of the share of each layer's active pairs that each expert takes.

    The colour bar runs from 0 to the largest share, at least twice the fair one, and marks the fair share 1/E.

    load_LE: rows sum to 1 (or are 0 where nothing was active). layers: L names, first at the top.
    ax: where to draw; None makes a figure of fitting size, reachable as ``axes.figure``.
    entropy, entropy_min: L values of normalised routing entropy and its least possible, written at the right.
    what: of the colour bar, for other shares per expert, such as those of the summed gate weights.
    """
    load = array_of("load_LE", load_LE, ("layers", "experts"))
    for name, values in [("layers", layers), ("entropy", entropy), ("entropy_min", entropy_min)]:
        check_count(name, values, len(load), "one a row of load_LE")
    num_layers, num_experts = load.shape
    ax = axes_of(ax, max(4.4 + 0.5 * num_experts, NARROW), 1.7 + 0.36 * num_layers)
    fair = 1 / num_experts
    image = heat_map(ax, load, max(largest_of(load), 2 * fair))
    dress(ax, title=title, xlabel="expert", ylabel="MoE layer")
    ax.set_xticks(number_ticks(num_experts))
    name_rows(ax, layers)
    print_values(ax, load, image)
    if entropy is not None:
        least = [None] * num_layers if entropy_min is None else entropy_min
        name_right(ax, list(map(entropy_text, entropy, least)), "routing entropy")
    fair_bar(ax, image, fair, what)
    return ax


def no_experts(model: str = "", ax: Axes | None = None, *, title: str = "") -> Axes:
    """A picture that says that there is nothing to draw, for the dense variant of a comparison."""
    ax = axes_of(ax, 6.0, 1.6)
    dress(ax, title=title)
    ax.set_axis_off()
    text = "This model has no experts: every token passes through the same MLP."
    ax.text(0.5, 0.6, text, ha="center", va="center", color=INK, transform=ax.transAxes)
    ax.text(0.5, 0.3, readable(model, 80), ha="center", va="center", color=SOFT, transform=ax.transAxes)
    return ax


def save_expert_load(run: Run | Mapping[str, object] | str | Path, path: str | Path) -> Path:
    """Draw a run's expert load into a PNG; a dense run gets `no_experts`. Returns the path.

    run: a run, its folder, or the content of a `result.json`.
    """
    path = Path(path)
    if isinstance(run, Mapping):
        run = parse_result(run, path.parent)
    elif not isinstance(run, Run):
        run = read_run(run)
    if run.routing is None:
        ax = no_experts(run.model, title=f"{run.gate}: no expert load")
    else:
        layers = run.routing.layers
        if len({len(layer.load) for layer in layers}) > 1:
            raise ValueError(f"{run.name}: layers differ in their number of experts; plot them one by one")
        ax = expert_load(
            [layer.load for layer in layers],
            [layer.layer for layer in layers],
            title=f"{run.gate}: expert load\n{run.model}",
            entropy=[layer.figures.entropy for layer in layers],
            entropy_min=[layer.figures.entropy_min for layer in layers],
        )
    return save_png(ax, path)
