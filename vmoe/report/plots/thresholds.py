"""Accuracy, or a language model's perplexity, of one checkpoint at several thresholds θ."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes

from vmoe.report.columns import common_prefix
from vmoe.report.sweep import Sweep

from .canvas import axes_of, save_png
from .points import score_against


def accuracy_at_thresholds(sweep: Sweep, ax: Axes | None = None, *, title: str = "") -> Axes:
    """The score against FLOPs an item of one checkpoint at several θ, each point labelled, that of training marked.

    ax: as in `expert_load`.
    """
    task = sweep.runs[0].task
    flops = [run.measured[task.flops.key] or 0.0 for run in sweep.runs]  # a sweep counts the routing, so none is None
    prefix, scale = common_prefix(flops, "MGT")
    thetas: dict[tuple[float, float], list[str]] = {}  # several θ may come to the same routing
    for run, one, label in zip(sweep.runs, flops, sweep.labels, strict=True):
        score = run.measured[task.score]
        assert score is not None
        thetas.setdefault((one / scale, score), []).append(label)
    trained = dict(zip(sweep.thresholds, sweep.labels, strict=True)).get(sweep.trained)
    return score_against(
        [one for one, _ in thetas],
        [score for _, score in thetas],
        [f"θ = {', '.join(here)}" for here in thetas.values()],
        axes_of(ax, 7.0, 4.4),
        title=title,
        xlabel=f"{prefix}FLOPs {task.item}",
        ylabel=task.axis,
        highlighted=[trained in here for here in thetas.values()],
        joined=True,
        least_span=task.least_span,
    )


def save_sweep(sweep: Sweep, path: str | Path) -> Path:
    """Draw a sweep of θ into a PNG. Returns the path."""
    first = sweep.runs[0]
    return save_png(accuracy_at_thresholds(sweep, title=f"{first.gate}: θ at evaluation\n{first.model}"), Path(path))
