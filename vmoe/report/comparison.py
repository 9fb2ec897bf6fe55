"""The table that compares runs: a row a config, over its seeds, or a row a run."""

from __future__ import annotations

from collections.abc import Iterable

from vmoe.report.columns import SPREAD, columns_of, note_of, pick, tasks_of
from vmoe.report.differences import Differences
from vmoe.report.runs import Run
from vmoe.report.seeds import Rows, rows_of
from vmoe.report.table import Column, Table

ROUTING = ("entropy", "load_max", "load_cv", "dead", "density")


def comparison(runs: Iterable[Run], *, each: bool = False) -> Table:
    """Accuracy, cost and routing health of runs, of one task or of several, side by side; seeds of one config as their
    mean and spread, or with `each` every run by itself.
    """
    return comparison_table(rows_of(runs, each=each))


def comparison_table(rows: Rows) -> Table:
    """`comparison` of runs that are grouped."""
    members = [row.runs for row in rows.rows]
    runs = [run for row in members for run in row]
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
    several = len(runs) > len(members)
    notes = [note_of(runs), *([SPREAD] if several else []), *rows.notes]
    names = [_names(rows), *([_seeds(rows)] if several else [])]
    return Table((*names, *pick(columns_of(members), keys)), " ".join(notes))


def comparison_markdown(table: Table, differing: Differences) -> str:
    """The table, and below it the config lines that differ."""
    heading = ["\nThe configs differ in:\n\n"] if differing.tables else []
    return "".join([table.markdown(), *heading, "\n".join(one.markdown() for one in differing.tables)])


def _names(rows: Rows) -> Column:
    labels = tuple(row.label for row in rows.rows)
    return Column("run", labels, {"run": labels}, numeric=False)


def _seeds(rows: Rows) -> Column:
    """How many, and for CSV which."""
    numbers = tuple(len(row.runs) for row in rows.rows)
    seeds = tuple(" ".join(str(run.seed) for run in row.runs) for row in rows.rows)
    return Column("seeds", tuple(map(str, numbers)), {"n": numbers, "seeds": seeds})
