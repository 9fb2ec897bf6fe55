"""The table that compares runs: one row a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vmoe.report.columns import NOTE, columns_of
from vmoe.report.runs import Run
from vmoe.report.table import Column, Table

COLUMNS = (
    *("gate", "top1", "top5", "params", "active_params", "flops_per_image", "train_flops"),
    *("entropy", "load_max", "load_cv", "dead", "density", "images_per_second"),
)


def labels_of(runs: Sequence[Run]) -> tuple[str, ...]:
    """What each run is called beside the others: its name, or its folder where several have that name."""
    names = [run.name for run in runs]
    return tuple(run.name if names.count(run.name) == 1 else str(run.folder) for run in runs)


def comparison(runs: Iterable[Run]) -> Table:
    """Accuracy, cost and routing health of runs, side by side."""
    runs = list(runs)
    if not runs:
        raise ValueError("nothing to compare: give at least one run")
    labels = labels_of(runs)
    columns = columns_of(runs)
    return Table((Column("run", labels, {"run": labels}, numeric=False), *map(columns.__getitem__, COLUMNS)), NOTE)
