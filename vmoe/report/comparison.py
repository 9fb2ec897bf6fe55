"""The table that compares runs: one row a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vmoe.report.columns import columns_of, note_of, pick, tasks_of
from vmoe.report.runs import Run
from vmoe.report.table import Column, Table

ROUTING = ("entropy", "load_max", "load_cv", "dead", "density")


def labels_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """What each run is called beside the others: its name, or its folder where several have that name."""
    names = [run.name for run in runs]
    return tuple(run.name if names.count(run.name) == 1 else str(run.folder) for run in runs)


def comparison(runs: Iterable[Run]) -> Table:
    """Accuracy, cost and routing health of runs, of one task or of several, side by side."""
    runs = list(runs)
    if not runs:
        raise ValueError("nothing to compare: give at least one run")
    labels = labels_of(runs)
    tasks = tasks_of(runs)
    keys = (
        "gate",
        *(measure.key for task in tasks for measure in task.quality),
        *("params", "active_params"),
        *(task.flops.key for task in tasks),
        "train_flops",
        *ROUTING,
        *(key for task in tasks for key in task.figures),
        *(task.speed.key for task in tasks),
    )
    names = Column("run", labels, {"run": labels}, numeric=False)
    return Table((names, *pick(columns_of(runs), keys)), note_of(runs))
