"""Accuracy, or a language model's perplexity, against what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from vmoe.report.columns import common_prefix, tasks_of
from vmoe.report.comparison import labels_of
from vmoe.report.runs import Run
from vmoe.report.sweep import Sweep
from vmoe.report.tasks import Task

from .canvas import axes_of, save_png
from .points import score_against


def accuracy_at_thresholds(sweep: Sweep, ax: Axes | None = None, *, title: str = "") -> Axes:
    """The score against FLOPs an item of one checkpoint at several θ, each point labelled, that of training marked.

    ax: as in `expert_load`.
    """
    task = _task_of(sweep.runs)
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


def accuracy_against_training(runs: Sequence[Run], ax: Axes | None = None, *, title: str = "") -> Axes:
    """The score of runs against the FLOPs that their training spent, each point labelled; those without a gate in
    vermilion.

    Runs that do not say what their training spent are left out. ax: as in `expert_load`.

    Raises `ValueError` if no run says it, and for runs of several tasks.
    """
    task = _task_of(runs)
    known = [(run, label) for run, label in zip(runs, labels_of(runs), strict=True) if run.train_flops]
    if not known:
        raise ValueError("no run says what its training spent (train_flops); nothing to plot")
    prefix, scale = common_prefix([run.train_flops for run, _ in known], "GTPE")
    return score_against(
        [(run.train_flops or 0.0) / scale for run, _ in known],
        [run.measured[task.score] or 0.0 for run, _ in known],
        [label for _, label in known],
        ax,
        title=title,
        xlabel=f"{prefix}FLOPs spent in training",
        ylabel=task.axis,
        highlighted=[run.routing is None for run, _ in known],
        least_span=task.least_span,
    )


def save_sweep(sweep: Sweep, path: str | Path) -> Path:
    """Draw a sweep of θ into a PNG. Returns the path."""
    first = sweep.runs[0]
    return save_png(accuracy_at_thresholds(sweep, title=f"{first.gate}: θ at evaluation\n{first.model}"), Path(path))


def save_accuracy_against_training(runs: Sequence[Run], path: str | Path) -> Path:
    """Draw `accuracy_against_training` into a PNG. Returns the path."""
    title = ", ".join(dict.fromkeys(run.model for run in runs))
    return save_png(accuracy_against_training(runs, title=title), Path(path))


def _task_of(runs: Sequence[Run]) -> Task:
    tasks = tasks_of(runs)
    if len(tasks) != 1:
        found = ", ".join(f"{run.name} ({run.task.name})" for run in runs)
        raise ValueError(f"one plot needs one task, and these have {len(tasks)}: {found}; plot each task by itself")
    return tasks[0]
