"""Expert load: who gets how much of the work, layer by layer.

Shapes: L layers, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.image import AxesImage

from vmoe.report.runs import Run, parse_result, read_run

from .canvas import COLORS, GREY, new_figure, save_png

MAX_PRINTED_EXPERTS = 16  # with more, cells are too narrow for their value
MAX_TICKS = 16


def expert_load(
    load_LE: Sequence[Sequence[float]],
    layers: Sequence[str],
    ax: Axes | None = None,
    *,
    title: str = "",
    entropy: Sequence[float] | None = None,
    entropy_min: Sequence[float] | None = None,
) -> Axes:
    """Heat map of the share of each layer's active pairs that each expert takes.

    The colour bar runs from 0 to the largest share, at least twice the fair one, and marks the fair share 1/E.

    load_LE: rows sum to 1 (or are 0 where nothing was active). layers: L names, first at the top.
    ax: where to draw; None makes a figure of fitting size, reachable as ``axes.figure``.
    entropy, entropy_min: L values of normalised routing entropy and its least possible, written at the right.
    """
    load = np.asarray(load_LE, dtype=float)
    if load.ndim != 2 or load.size == 0:
        raise ValueError(f"load_LE has shape {load.shape}; allowed: (layers, experts), neither of them 0")
    for name, values in [("layers", layers), ("entropy", entropy), ("entropy_min", entropy_min)]:
        if values is not None and len(values) != len(load):
            raise ValueError(f"{name} has {len(values)} entries; allowed: {len(load)}, one a row of load_LE")
    num_layers, num_experts = load.shape
    if ax is None:
        ax = new_figure(width=min(max(4.4 + 0.5 * num_experts, 7.0), 13), height=1.7 + 0.36 * num_layers).add_subplot()

    fair = 1 / num_experts
    largest = max(float(load.max()), 2 * fair)
    norm = Normalize(0, largest)
    image = ax.imshow(load, cmap=COLORS, norm=norm, aspect="auto", interpolation="nearest")
    ax.set_xticks(np.arange(num_experts + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(num_layers + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=1.0 if num_experts <= MAX_PRINTED_EXPERTS else 0.4)
    ax.tick_params(which="both", length=0)
    ax.spines[:].set_visible(False)
    ax.set_xticks(range(0, num_experts, -(-num_experts // MAX_TICKS)))
    ax.set_yticks(range(num_layers), layers)
    ax.set_xlabel("expert")
    ax.set_ylabel("MoE layer")
    ax.set_title(title, fontsize=11)
    if num_experts <= MAX_PRINTED_EXPERTS:
        _print_values(ax, load, norm)
    if entropy is not None:
        _annotate_rows(ax, entropy, entropy_min)
    _color_bar(ax, image, fair, largest)
    return ax


def no_experts(model: str = "", ax: Axes | None = None, *, title: str = "") -> Axes:
    """A picture that says that there is nothing to draw, for the dense variant of a comparison."""
    if ax is None:
        ax = new_figure(width=6.0, height=1.6).add_subplot()
    ax.set_axis_off()
    ax.set_title(title, fontsize=11)
    text = "This model has no experts: every token passes through the same MLP."
    ax.text(0.5, 0.6, text, ha="center", va="center", transform=ax.transAxes)
    ax.text(0.5, 0.3, model, ha="center", va="center", color=GREY, transform=ax.transAxes)
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


def _print_values(ax: Axes, load: np.ndarray, norm: Normalize) -> None:
    for (row, column), share in np.ndenumerate(load):
        color = "black" if norm(share) > 0.45 else "white"
        ax.text(column, row, f"{100 * share:.1f}", ha="center", va="center", color=color, fontsize=8)


def _annotate_rows(ax: Axes, entropy: Sequence[float], entropy_min: Sequence[float] | None) -> None:
    labels = [f"{value:.3f}" for value in entropy]
    if entropy_min is not None:
        labels = [f"{label} (≥ {least:.2f})" for label, least in zip(labels, entropy_min, strict=True)]
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(len(labels)), labels, color=GREY)
    right.set_ylabel("routing entropy", color=GREY)
    right.tick_params(length=0)
    right.spines[:].set_visible(False)


def _color_bar(ax: Axes, image: AxesImage, fair: float, largest: float) -> None:
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, label="load (% of pairs)")
    ticks = [0.0, fair, largest] if largest < 3 * fair else [0.0, fair, (fair + largest) / 2, largest]
    names = [f"{100 * tick:.3g}" for tick in ticks]
    names[1] += " fair (1/E)"
    bar.set_ticks(ticks, labels=names)
    bar.ax.axhline(fair, color="white", linewidth=2)
    bar.outline.set_visible(False)
