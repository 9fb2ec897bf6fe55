"""What tables say of runs, a column each: accuracy, cost and routing health."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vmoe.report.runs import Run
from vmoe.report.table import Column
from vmoe.report.tasks import Measure, Task, tasks_among

MISSING = "–"
NOTE = (
    "FLOPs: 2 per multiply-add. Routing columns: means over the MoE layers. Entropy: of the load, "
    "1 = perfectly even, ≥ the least possible at this density. Density: active token-expert pairs over all pairs."
)


def tasks_of(runs: Sequence[Run]) -> tuple[Task, ...]:
    return tasks_among(run.task for run in runs)


def note_of(runs: Sequence[Run]) -> str:
    return " ".join([NOTE, *(task.note for task in tasks_of(runs) if task.note)])


def columns_of(runs: Sequence[Run]) -> dict[str, Column]:
    """Every column a table of these runs can have, by its key in `result.json`; a cell for each run, in order.

    A run has no value under the keys of another task. Sparse columns without any value are left out.
    """
    means = [run.routing.mean if run.routing else None for run in runs]

    def figures(name: str) -> list[float | None]:
        return [None if mean is None else getattr(mean, name) for mean in means]

    params, active = [run.params for run in runs], [run.active_params for run in runs]
    measures = [measure for task in tasks_of(runs) for measure in task.measures]
    sparse = {measure.key for measure in measures if measure.sparse} | {"label_information_share"}
    digits = 3 if min(count for count in (*params, *active) if count is not None) < 1e5 else 2
    columns = {
        "gate": _text("gate", "gate", [run.gate for run in runs]),
        "loss": _number("loss", "loss", [run.loss for run in runs], digits=4),
        "params": _number("params (M)", "params", params, scale=1e6, digits=digits),
        "active_params": _number("active params (M)", "active_params", active, scale=1e6, digits=digits),
        "train_flops": _scaled("training {}FLOPs", "train_flops", [run.train_flops for run in runs], "GTPE"),
        "entropy": _entropy(figures("entropy"), figures("entropy_min")),
        "load_max": _number("largest load %", "load_max", figures("load_max"), scale=0.01, digits=1),
        "load_cv": _number("load CV", "load_cv", figures("load_cv")),
        "dead": _number("dead experts %", "dead", figures("dead"), scale=0.01, digits=1),
        "density": _number("density", "density", figures("density"), digits=3),
        "label_information_share": _number(
            "label information %", "label_information_share", figures("label_information_share"), scale=0.01, digits=1
        ),
        **{measure.key: _measured(measure, [run.measured.get(measure.key) for run in runs]) for measure in measures},
    }
    return {key: column for key, column in columns.items() if key not in sparse or set(column.cells) != {MISSING}}


def pick(columns: dict[str, Column], keys: Sequence[str]) -> tuple[Column, ...]:
    """Those columns in this order, but for the sparse ones that are not there."""
    return tuple(columns[key] for key in keys if key in columns)


def _entropy(entropy: Sequence[float | None], entropy_min: Sequence[float | None]) -> Column:
    cells = tuple(
        MISSING if value == MISSING else f"{value} (≥ {least})"
        for value, least in zip(_fixed(entropy, 3), _fixed(entropy_min, 2), strict=True)
    )
    return Column("routing entropy", cells, {"entropy": tuple(entropy), "entropy_min": tuple(entropy_min)})


def _measured(measure: Measure, values: Sequence[float | None]) -> Column:
    if measure.prefixes:
        return _scaled(measure.header, measure.key, values, measure.prefixes)
    return _number(measure.header, measure.key, values, digits=measure.digits)


def _text(header: str, key: str, values: Sequence[str]) -> Column:
    return Column(header, tuple(values), {key: tuple(values)}, numeric=False)


def _number(header: str, key: str, values: Sequence[float | None], scale: float = 1, digits: int = 2) -> Column:
    return Column(header, _fixed([None if v is None else v / scale for v in values], digits), {key: tuple(values)})


def _scaled(header: str, key: str, values: Sequence[float | None], prefixes: str) -> Column:
    prefix, scale = common_prefix(values, prefixes)
    return _number(header.format(prefix), key, values, scale=scale)


def common_prefix(values: Sequence[float | None], prefixes: str) -> tuple[str, float]:
    """One prefix for all values, and its factor: the largest that leaves the smallest value at 1 or more."""
    exponents = {"M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
    smallest = min((v for v in values if v is not None and v > 0), default=0.0)
    prefix = max((p for p in prefixes if smallest >= exponents[p]), key=exponents.__getitem__, default=prefixes[0])
    return prefix, exponents[prefix]


def _fixed(values: Sequence[float | None], digits: int) -> tuple[str, ...]:
    return tuple(MISSING if v is None or math.isnan(v) else f"{v:.{digits}f}" for v in values)
