"""Plots of routing. They need matplotlib, and draw on its figure objects alone: no global state, no display.

Shapes: L layers, E experts, P points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vmoe.report.columns import common_prefix
from vmoe.report.runs import Run, parse_result, read_run
from vmoe.report.sweep import Sweep

try:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.text import Annotation
except ImportError as error:
    raise ImportError("plots need matplotlib: pip install 'vmoe[report]'") from error

COLORS = "cividis"  # even steps for the eye, with and without colour blindness
MAX_PRINTED_EXPERTS = 16  # with more, cells are too narrow for their value
MAX_TICKS = 16
GREY = "0.35"
BLUE, VERMILION = "#0072B2", "#D55E00"  # of Okabe and Ito's palette: apart with and without colour blindness
LEAST_SPAN = 1.0  # points of accuracy that an axis shows at least, so that noise does not look like a slope


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
        ax = _figure(width=min(max(4.4 + 0.5 * num_experts, 7.0), 13), height=1.7 + 0.36 * num_layers).add_subplot()

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
        ax = _figure(width=6.0, height=1.6).add_subplot()
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
    return _save(ax, path)


def accuracy_against_flops(sweep: Sweep, ax: Axes | None = None, *, title: str = "") -> Axes:
    """Top-1 against FLOPs an image of one checkpoint at several θ, each point labelled, that of training marked.

    ax: as in `expert_load`.
    """
    if ax is None:
        ax = _figure(width=7.0, height=4.4).add_subplot()
    prefix, scale = common_prefix([run.flops_per_image for run in sweep.runs], "MGT")
    points_P2 = np.array([(run.flops_per_image / scale, run.top1) for run in sweep.runs])
    thetas: dict[tuple[float, float], list[str]] = {}  # several θ may come to the same routing
    for label, (flops, top1) in zip(sweep.labels, points_P2.tolist(), strict=True):
        thetas.setdefault((flops, top1), []).append(label)
    mark = dict(zip(sweep.thresholds, sweep.labels, strict=True)).get(sweep.trained)

    ax.plot(*points_P2.T, color=BLUE, linewidth=1.5, alpha=0.5, zorder=1)
    texts = []
    for point, here in thetas.items():
        trained = mark in here
        color, marker, size = (VERMILION, "D", 70) if trained else (BLUE, "o", 45)
        ax.scatter(*point, s=size, color=color, marker=marker, edgecolor="white", linewidth=1, zorder=2)
        text = ax.annotate(f"θ = {', '.join(here)}", point, (0, 0), textcoords="offset points", color=color)
        text.set(ha="center", va="center", fontsize=9, fontweight="bold" if trained else "normal")
        texts.append(text)
    ax.margins(0.12, 0.2)
    low, high = ax.get_ylim()
    room = max(0.0, LEAST_SPAN - (high - low)) / 2
    ax.set_ylim(low - room, high + room)
    ax.set_xlabel(f"{prefix}FLOPs an image")
    ax.set_ylabel("top-1 (%)")
    ax.set_title(title, fontsize=11)
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    _place(ax, texts, points_P2)
    return ax


def save_sweep(sweep: Sweep, path: str | Path) -> Path:
    """Draw a sweep of θ into a PNG. Returns the path."""
    first = sweep.runs[0]
    return _save(accuracy_against_flops(sweep, title=f"{first.gate}: θ at evaluation\n{first.model}"), Path(path))


def _save(ax: Axes, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert isinstance(ax.figure, Figure)
    ax.figure.savefig(path, format="png", dpi=150)
    return path


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


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


def _place(ax: Axes, texts: Sequence[Annotation], points_P2: np.ndarray) -> None:
    """Move each text beside its point, where it covers least of the curve and of the texts before it."""
    ax.figure.figure.draw_without_rendering()  # settles where the axes are
    pixels_P2 = ax.transData.transform(points_P2)
    steps = np.linspace(0, 1, 40)[:, None, None]
    curve = np.concatenate([pixels_P2, (pixels_P2[:-1] * (1 - steps) + pixels_P2[1:] * steps).reshape(-1, 2)])
    frame, pixels_a_point = ax.get_window_extent(), ax.figure.dpi / 72
    placed: list[tuple[np.ndarray, np.ndarray]] = []

    def cost(low: np.ndarray, high: np.ndarray) -> int:
        on_curve = ((curve > low) & (curve < high)).all(axis=1).sum()
        on_texts = sum((low < other_high).all() and (other_low < high).all() for other_low, other_high in placed)
        outside = (low < frame.min).any() or (high > frame.max).any()
        return int(on_curve) + 100 * int(on_texts) + 1000 * int(outside)

    for text in texts:
        box, center = text.get_window_extent(), ax.transData.transform(text.xy)
        half = np.array([box.width, box.height]) / 2
        choices = []
        for gap in (9, 15, 24, 36):  # near places first: of equal ones the first is taken
            for angle in np.deg2rad([90, 270, 135, 315, 45, 225, 180, 0]):
                middle = center + np.array([np.cos(angle), np.sin(angle)]) * (half + gap * pixels_a_point)
                choices.append((middle, middle - half - 2, middle + half + 2))
        middle, low, high = min(choices, key=lambda choice: cost(*choice[1:]))
        placed.append((low, high))
        text.set_position((middle - center) / pixels_a_point)
