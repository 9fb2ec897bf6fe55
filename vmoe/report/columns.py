"""What tables say of runs, a column each: accuracy, cost and routing health. A row is a run, or one config's runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from vmoe.report.runs import Run
from vmoe.report.samples import Sample, sample_of
from vmoe.report.table import Column
from vmoe.report.tasks import Measure, Task, tasks_among

MISSING = "–"
FIGURE_SPACE = "\u2007"  # as wide as a digit
NOTE = (
    "FLOPs: 2 per multiply-add. Routing columns: means over the MoE layers. Entropy: of the load, "
    "1 = perfectly even, ≥ the least possible at this density. Density: active token-expert pairs over all pairs."
)
SPREAD = "±: sample standard deviation over the seeds of a row, left out where it is 0 at the digits shown."
Samples = Sequence[Sample | None]


def tasks_of(runs: Sequence[Run]) -> tuple[Task, ...]:
    return tasks_among(run.task for run in runs)


def note_of(runs: Sequence[Run]) -> str:
    return " ".join([NOTE, *(task.note for task in tasks_of(runs) if task.note)])


def columns_of(rows: Sequence[Sequence[Run]]) -> dict[str, Column]:
    """Every column a table of these rows can have, by its key in `result.json`; a cell for each row, in order.

    Numbers are means over a row's runs, and beside its mean a column has their spread where any row has several runs. A
    run has no value under the keys of another task. Sparse columns without any value are left out.
    """
    runs = [run for row in rows for run in row]

    def samples(value: Callable[[Run], float | None]) -> Samples:
        return [sample_of([value(run) for run in row]) for row in rows]

    def figures(name: str) -> Samples:
        return samples(lambda run: None if run.routing is None else getattr(run.routing.mean, name))

    def measured(key: str) -> Samples:
        return samples(lambda run: run.measured.get(key))

    measures = [measure for task in tasks_of(runs) for measure in task.measures]
    sparse = {measure.key for measure in measures if measure.sparse} | {"label_information_share"}
    counts = [count for run in runs for count in (run.params, run.active_params) if count is not None]
    digits = 3 if min(counts) < 1e5 else 2
    columns = {
        "gate": _text("gate", "gate", [row[0].gate for row in rows]),
        "loss": _number("loss", "loss", samples(lambda run: run.loss), digits=4),
        "params": _number("params (M)", "params", samples(lambda run: run.params), scale=1e6, digits=digits),
        "active_params": _number(
            "active params (M)", "active_params", samples(lambda run: run.active_params), scale=1e6, digits=digits
        ),
        "train_flops": _scaled("training {}FLOPs", "train_flops", samples(lambda run: run.train_flops), "GTPE"),
        "entropy": _entropy(figures("entropy"), figures("entropy_min")),
        "load_max": _number("largest load %", "load_max", figures("load_max"), scale=0.01, digits=1),
        "load_cv": _number("load CV", "load_cv", figures("load_cv")),
        "dead": _number("dead experts %", "dead", figures("dead"), scale=0.01, digits=1),
        "density": _number("density", "density", figures("density"), digits=3),
        "label_information_share": _number(
            "label information %", "label_information_share", figures("label_information_share"), scale=0.01, digits=1
        ),
        **{measure.key: _measured(measure, measured(measure.key)) for measure in measures},
    }
    return {key: column for key, column in columns.items() if key not in sparse or set(column.cells) != {MISSING}}


def pick(columns: dict[str, Column], keys: Sequence[str]) -> tuple[Column, ...]:
    """Those columns in this order, but for the sparse ones that are not there."""
    return tuple(columns[key] for key in keys if key in columns)


def _entropy(entropy: Samples, entropy_min: Samples) -> Column:
    cells = tuple(
        value if value == MISSING else f"{value} (≥ {least})"
        for value, least in zip(_fixed(entropy, 3), _fixed(_means(entropy_min), 2), strict=True)
    )
    values = _values("entropy", entropy) | _values("entropy_min", entropy_min)
    return Column("routing entropy", cells, values, numeric=not _any_spread(cells))


def _measured(measure: Measure, values: Samples) -> Column:
    if measure.prefixes:
        return _scaled(measure.header, measure.key, values, measure.prefixes)
    return _number(measure.header, measure.key, values, digits=measure.digits)


def _text(header: str, key: str, values: Sequence[str]) -> Column:
    return Column(header, tuple(values), {key: tuple(values)}, numeric=False)


def _number(header: str, key: str, values: Samples, scale: float = 1, digits: int = 2) -> Column:
    cells = _fixed(values, digits, scale)
    return Column(header, cells, _values(key, values), numeric=not _any_spread(cells))


def _scaled(header: str, key: str, values: Samples, prefixes: str) -> Column:
    prefix, scale = common_prefix([None if value is None else value.mean for value in values], prefixes)
    return _number(header.format(prefix), key, values, scale=scale)


def common_prefix(values: Sequence[float | None], prefixes: str) -> tuple[str, float]:
    """One prefix for all values, and its factor: the largest that leaves the smallest value at 1 or more."""
    exponents = {"M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
    smallest = min((v for v in values if v is not None and v > 0), default=0.0)
    prefix = max((p for p in prefixes if smallest >= exponents[p]), key=exponents.__getitem__, default=prefixes[0])
    return prefix, exponents[prefix]


def _values(key: str, values: Samples) -> dict[str, tuple[object, ...]]:
    """For CSV."""
    means = tuple(None if value is None else value.mean for value in values)
    spreads = tuple(None if value is None else value.spread for value in values)
    return {key: means} if set(spreads) == {None} else {key: means, f"{key}_spread": spreads}


def _means(values: Samples) -> Samples:
    return [None if value is None else Sample(value.mean, None) for value in values]


def _fixed(values: Samples, digits: int, scale: float = 1) -> tuple[str, ...]:
    """With spreads, as many figures before each point, so that the means stand below each other."""
    cells = [MISSING if v is None or math.isnan(v.mean) else _with_spread(v, digits, scale) for v in values]
    if not _any_spread(cells):
        return tuple(cells)
    means = [0 if cell == MISSING else len(cell.split(" ± ")[0]) for cell in cells]
    widest = max(means)
    return tuple(FIGURE_SPACE * (widest - mean if mean else 0) + cell for mean, cell in zip(means, cells, strict=True))


def _any_spread(cells: Sequence[str]) -> bool:
    return any("±" in cell for cell in cells)


def _with_spread(value: Sample, digits: int, scale: float) -> str:
    """``71.50 ± 0.82``; without a spread that these digits do not show."""
    mean, spread = (f"{number / scale:.{digits}f}" for number in (value.mean, value.spread or 0.0))
    return mean if float(spread) == 0 else f"{mean} ± {spread}"
