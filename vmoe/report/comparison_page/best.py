"""Which cells of a table of runs are the best of their column, where that can be said."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vmoe.report.columns import tasks_of
from vmoe.report.samples import Sample, sample_of
from vmoe.report.seeds import Row

LEAST_SEEDS = 3  # the spread of two says next to nothing
NOTE = f"Bold: the best; its mean ± spread meets that of no other row, each of at least {LEAST_SEEDS} seeds."


def best_cells(rows: Sequence[Row]) -> frozenset[tuple[int, str]]:
    """Numbers of rows and keys of quality in `result.json`.

    A row is marked where every other row of its task has that value too, each of `LEAST_SEEDS` or more, and no interval
    of mean ± spread meets its own.
    """
    found = set()
    for task in tasks_of([row.first for row in rows]):
        mine = [number for number, row in enumerate(rows) if row.first.task is task]
        if len(mine) < 2 or any(len(rows[number].runs) < LEAST_SEEDS for number in mine):
            continue
        for measure in task.quality:
            values = {number: sample_of([run.measured[measure.key] for run in rows[number].runs]) for number in mine}
            number = _best(values, -1 if measure.lower_is_better else 1)
            if number is not None:
                found.add((number, measure.key))
    return frozenset(found)


def _best(values: dict[int, Sample | None], sign: int) -> int | None:
    """The number of the one whose interval lies above all others, with sign −1 below."""
    ends = {}
    for number, value in values.items():
        if value is None or not math.isfinite(value.low + value.high):
            return None
        ends[number] = sorted((sign * value.low, sign * value.high))
    best = max(ends, key=lambda number: ends[number][0])
    return best if all(ends[best][0] > high for number, (_, high) in ends.items() if number != best) else None
