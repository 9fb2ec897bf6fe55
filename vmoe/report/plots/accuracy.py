"""Accuracy, or a language model's perplexity, against what it costs.

Shapes: P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation

from vmoe.report.columns import common_prefix, tasks_of
from vmoe.report.comparison import labels_of
from vmoe.report.runs import Run
from vmoe.report.sweep import Sweep
from vmoe.report.tasks import Task

from .canvas import BLUE, VERMILION, new_figure, save_png


def accuracy_at_thresholds(sweep: Sweep, ax: Axes | None = None, *, title: str = "") -> Axes:
    """The score against FLOPs an item of one checkpoint at several θ, each point labelled, that of training marked.

    ax: as in `expert_load`.
    """
    task = _task_of(sweep.runs)
    if ax is None:
        ax = new_figure(width=7.0, height=4.4).add_subplot()
    flops_P = [run.measured[task.flops.key] or 0.0 for run in sweep.runs]  # a sweep counts the routing, so none is None
    prefix, scale = common_prefix(flops_P, "MGT")
    points_P2 = np.array([(f / scale, run.measured[task.score]) for f, run in zip(flops_P, sweep.runs, strict=True)])
    thetas: dict[tuple[float, float], list[str]] = {}  # several θ may come to the same routing
    for label, (flops, score) in zip(sweep.labels, points_P2.tolist(), strict=True):
        thetas.setdefault((flops, score), []).append(label)
    mark = dict(zip(sweep.thresholds, sweep.labels, strict=True)).get(sweep.trained)

    ax.plot(*points_P2.T, color=BLUE, linewidth=1.5, alpha=0.5, zorder=1)
    texts = []
    for point, here in thetas.items():
        trained = mark in here
        color, marker, size = (VERMILION, "D", 70) if trained else (BLUE, "o", 45)
        text = _labelled_point(ax, point, f"θ = {', '.join(here)}", color=color, marker=marker, size=size)
        text.set_fontweight("bold" if trained else "normal")
        texts.append(text)
    _finish(ax, texts, points_P2, task, xlabel=f"{prefix}FLOPs {task.item}", title=title)
    return ax


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
    if ax is None:
        ax = new_figure(width=8.0, height=5.0).add_subplot()
    prefix, scale = common_prefix([run.train_flops for run, _ in known], "GTPE")
    points_P2 = np.array([(run.train_flops / scale, run.measured[task.score]) for run, _ in known if run.train_flops])
    texts = []
    for (run, label), (flops, score) in zip(known, points_P2.tolist(), strict=True):
        color = VERMILION if run.routing is None else BLUE
        texts.append(_labelled_point(ax, (flops, score), label, color=color))
    _finish(ax, texts, points_P2, task, xlabel=f"{prefix}FLOPs spent in training", title=title, curve=False)
    return ax


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


def _labelled_point(
    ax: Axes, point: tuple[float, float], label: str, *, color: str, marker: str = "o", size: float = 45
) -> Annotation:
    """A point, and its label, which `_place` moves beside it."""
    flops, score = point
    ax.scatter(flops, score, s=size, color=color, marker=marker, edgecolor="white", linewidth=1, zorder=2)
    text = ax.annotate(label, point, (0, 0), textcoords="offset points", color=color)
    text.set(ha="center", va="center", fontsize=9)
    return text


def _finish(
    ax: Axes,
    texts: Sequence[Annotation],
    points_P2: np.ndarray,
    task: Task,
    *,
    xlabel: str,
    title: str,
    curve: bool = True,
) -> None:
    """Axes, grid and labels in their places. curve: whether a line joins the points."""
    ax.margins(0.12, 0.2)
    low, high = ax.get_ylim()
    room = max(0.0, task.least_span - (high - low)) / 2
    ax.set_ylim(low - room, high + room)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(task.axis)
    ax.set_title(title, fontsize=11)
    ax.grid(color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    _place(ax, texts, points_P2, curve=curve)


def _place(ax: Axes, texts: Sequence[Annotation], points_P2: np.ndarray, *, curve: bool) -> None:
    """Move each text beside its point, where it covers least of the curve and of the texts before it."""
    ax.figure.figure.draw_without_rendering()  # settles where the axes are
    pixels_P2 = ax.transData.transform(points_P2)
    steps = np.linspace(0, 1, 40)[:, None, None]
    between = (pixels_P2[:-1] * (1 - steps) + pixels_P2[1:] * steps).reshape(-1, 2)
    drawn = np.concatenate([pixels_P2, between]) if curve else pixels_P2
    frame, pixels_a_point = ax.get_window_extent(), ax.figure.dpi / 72
    placed: list[tuple[np.ndarray, np.ndarray]] = []

    def cost(low: np.ndarray, high: np.ndarray) -> int:
        on_drawn = ((drawn > low) & (drawn < high)).all(axis=1).sum()
        on_texts = sum((low < other_high).all() and (other_low < high).all() for other_low, other_high in placed)
        outside = (low < frame.min).any() or (high > frame.max).any()
        return int(on_drawn) + 100 * int(on_texts) + 1000 * int(outside)

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
