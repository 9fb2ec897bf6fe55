"""A checkpoint evaluated at several thresholds θ: what `sweep.json` says, and its table.

`sweep.json` holds ``format``, ``checkpoint``, ``trained_threshold`` and ``rows``, in the order of θ; a row has the keys
of `result.json` and ``threshold``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vmoe.report.columns import columns_of, note_of, pick, tasks_of
from vmoe.report.reader import Reader
from vmoe.report.runs import Run, check_format, take_run
from vmoe.report.table import Column, Table

SWEEP = "sweep.json"


@dataclass(frozen=True)
class Sweep:
    """thresholds: θ, absolute, one for each run, ascending. trained: the θ of training, among them or not."""

    thresholds: tuple[float, ...]
    runs: tuple[Run, ...]
    trained: float

    @property
    def labels(self) -> tuple[str, ...]:
        """θ as people read it, that of training marked."""
        return tuple(f"{theta} (trained)" if theta == self.trained else f"{theta}" for theta in self.thresholds)


def parse_sweep(content: object, folder: str | Path) -> Sweep:
    """Check the content of a `sweep.json`. folder: where it lies or is going to, for errors."""
    folder = Path(folder)
    reader = Reader(content, str(folder / SWEEP))
    check_format(reader)
    rows = reader.inner_list("rows")
    return Sweep(
        thresholds=tuple(row.number("threshold") for row in rows),
        runs=tuple(take_run(row, folder) for row in rows),
        trained=reader.number("trained_threshold"),
    )


def sweep_table(sweep: Sweep) -> Table:
    """Accuracy, cost and routing health at each θ; the one of training is marked."""
    values: dict[str, tuple[object, ...]] = {
        "threshold": sweep.thresholds,
        "trained": tuple(int(theta == sweep.trained) for theta in sweep.thresholds),
    }
    tasks = tasks_of(sweep.runs)
    keys = (
        *(measure.key for task in tasks for measure in task.quality),
        *("loss", "density"),
        *(task.flops.key for task in tasks),
        *("active_params", "entropy", "dead"),
    )
    theta = f"θ: pairs are active whose score is at least θ over the temperature; trained with θ = {sweep.trained}."
    return Table(
        (Column("θ", sweep.labels, values, numeric=False), *pick(columns_of([(run,) for run in sweep.runs]), keys)),
        f"{theta} {note_of(sweep.runs)}",
    )
