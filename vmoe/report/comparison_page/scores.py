"""How good the rows of a task are against what they cost: a point a row, with the spread of its seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes

from vmoe.report.columns import common_prefix, tasks_of
from vmoe.report.plots import save_png, score_against
from vmoe.report.runs import Run
from vmoe.report.samples import Sample, sample_of
from vmoe.report.seeds import Row
from vmoe.report.tasks import Task


@dataclass(frozen=True)
class Cost:
    """What a score is drawn against. xlabel: with {} for the prefix where `prefixes` has those to choose from."""

    key: str
    title: str
    value: Callable[[Run], float | None]
    xlabel: str
    prefixes: str = ""


def costs_of(task: Task) -> tuple[Cost, ...]:
    """Active FLOPs, training FLOPs, routing entropy."""
    return (
        Cost("flops", "Active FLOPs", lambda run: run.measured[task.flops.key], f"active {{}}FLOPs {task.item}", "MGT"),
        TRAINING,
        Cost(
            "entropy",
            "Routing entropy",
            lambda run: None if run.routing is None else run.routing.mean.entropy,
            "normalised routing entropy, mean over the MoE layers",
        ),
    )


TRAINING = Cost("training", "Training FLOPs", lambda run: run.train_flops or None, "{}FLOPs spent in training", "GTPE")


def draw_scores(rows: Sequence[Row], task: Task, cost: Cost, *, title: str = "") -> Axes:
    """Each row that has both, at its means, labelled; rows without experts are marked.

    Raises `ValueError` where no row has both.
    """
    known = list(_points(rows, task, cost))
    if not known:
        raise ValueError(f"no run says its {cost.title.lower()}; nothing to plot")
    prefix, scale = common_prefix([x.mean for _, x, _ in known], cost.prefixes) if cost.prefixes else ("", 1.0)
    return score_against(
        [x.mean / scale for _, x, _ in known],
        [y.mean for _, _, y in known],
        [row.label for row, _, _ in known],
        title=title,
        xlabel=cost.xlabel.format(prefix),
        ylabel=task.axis,
        spread=[y.spread or 0.0 for _, _, y in known],
        highlighted=[row.first.routing is None for row, _, _ in known],
        least_span=task.least_span,
    )


def left_out(rows: Sequence[Row], task: Task, cost: Cost) -> tuple[str, ...]:
    """The labels of the rows that `draw_scores` cannot show."""
    shown = [row for row, _, _ in _points(rows, task, cost)]
    return tuple(row.label for row in rows if row not in shown)


def save_scores(rows: Sequence[Row], path: Path) -> Path:
    """Draw the score of rows of one task against the FLOPs that their training spent into a PNG. Returns the path.

    Raises `ValueError` for rows of several tasks, and where no run says what its training spent.
    """
    tasks = tasks_of([row.first for row in rows])
    if len(tasks) != 1:
        found = ", ".join(f"{row.label} ({row.first.task.name})" for row in rows)
        raise ValueError(f"one plot needs one task, and these have {len(tasks)}: {found}; plot each task by itself")
    title = ", ".join(dict.fromkeys(row.first.model for row in rows))
    return save_png(draw_scores(rows, tasks[0], TRAINING, title=title), path)


def _points(rows: Sequence[Row], task: Task, cost: Cost) -> Iterator[tuple[Row, Sample, Sample]]:
    for row in rows:
        x = sample_of([cost.value(run) for run in row.runs])
        y = sample_of([run.measured[task.score] for run in row.runs])
        if x is not None and y is not None and math.isfinite(x.mean) and math.isfinite(y.mean):
            yield row, x, y
