"""How the training of a row went: a number over optimizer steps, its mean and spread over the row's seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmoe.report.metrics import METRICS, Metrics, Moment, read_metrics
from vmoe.report.run_files import home_of
from vmoe.report.run_page.series import groups
from vmoe.report.samples import sample_of
from vmoe.report.seeds import Row

MOST_POINTS = 250  # of a line; more cannot be seen apart, and make the page heavy
LARGEST_EXPONENT = 700.0  # of e, in floats


@dataclass(frozen=True)
class Curve:
    """steps: ascending. mean: over the seeds. low, high: a spread below and above it; of one seed the mean itself."""

    steps: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class History:
    """What the runs of a row have logged, those of them that have. notes: what is missing, for people."""

    metrics: tuple[Metrics, ...]
    notes: tuple[str, ...] = ()

    def trained(self, key: str, *, log: bool = False) -> Curve:
        """A number of the training lines. log: mean and spread are of its logarithm."""
        return _curve([_points(one.train, key) for one in self.metrics], log=log)

    def evaluated(self, key: str) -> Curve:
        """A number of the evaluations."""
        return _curve([_points(one.evaluations, key) for one in self.metrics])

    def observed(self, key: str) -> Curve:
        """A number of the training lines, or of the evaluations where those have none."""
        curve = self.trained(key)
        return curve if curve.steps else self.evaluated(key)


def histories_of(rows: Sequence[Row]) -> list[History]:
    """For each row its history. Evaluations have that of the run they are of, once among all rows."""
    taken: dict[Path, str] = {}
    return [_history(row, taken) for row in rows]


def _history(row: Row, taken: dict[Path, str]) -> History:
    metrics, notes = [], []
    for run in row.runs:
        path = home_of(run.folder) / METRICS
        if (place := path.absolute()) in taken:
            notes.append(f"{run.folder} is of the run in {path.parent}, whose training is drawn under {taken[place]}.")
            continue
        taken[place] = row.label
        found = read_metrics(path)
        if found.train or found.evaluations:
            metrics.append(found)
        elif not found.problems:
            notes.append(f"{path} has no line yet.")
        notes += found.problems
    return History(tuple(metrics), tuple(notes))


def _points(moments: Sequence[Moment], key: str) -> dict[int, float]:
    return {moment.step: moment.values[key] for moment in moments if key in moment.values}


def _curve(runs: Sequence[dict[int, float]], *, log: bool = False) -> Curve:
    """Of the runs that have the number, at the steps that all of these have."""
    runs = [points for points in runs if points]
    if not runs:
        return Curve()
    into, back = (math.log, _exp) if log else (_same, _same)
    steps = sorted(step for step in set.intersection(*map(set, runs)) if not log or all(one[step] > 0 for one in runs))
    parts = [steps[part] for part in groups(len(steps), MOST_POINTS)]
    samples = [sample_of([sum(into(one[step]) for step in part) / len(part) for one in runs]) for part in parts]
    known = [sample for sample in samples if sample is not None]  # all of them: each run has each step
    return Curve(
        steps=tuple(sum(part) / len(part) for part in parts),
        mean=tuple(back(sample.mean) for sample in known),
        low=tuple(back(sample.low) for sample in known),
        high=tuple(back(sample.high) for sample in known),
    )


def _same(value: float) -> float:
    return value


def _exp(value: float) -> float:
    return math.exp(min(value, LARGEST_EXPONENT))
