"""Moments of a run as lines that a page can hold: at most so many points, each of as many moments as it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vmoe.report.metrics import Moment, Served

MOST_POINTS = 500
MOST_COLUMNS = 160  # of a heat map over time


class Line(NamedTuple):
    """Points of a line. moments: how many each point stands for, at most."""

    steps: list[float]
    values: list[float]
    moments: int


def groups(count: int, most: int) -> list[slice]:
    """Consecutive numbers below `count` in at most `most` equal groups; the first may be smaller, the last is whole."""
    size = max(1, -(-count // most))
    ends = range(count, 0, -size)
    return [slice(max(0, end - size), end) for end in reversed(ends)]


def mean_line(moments: Sequence[Moment], key: str, most: int = MOST_POINTS) -> Line:
    """A number of the moments that have it; a point is the mean of its moments, at the last one's step."""
    found = [(moment.step, moment.values[key]) for moment in moments if key in moment.values]
    parts = groups(len(found), most)
    steps = [float(found[part][-1][0]) for part in parts]
    values = [float(np.mean([value for _, value in found[part]])) for part in parts]
    return Line(steps, values, max((part.stop - part.start for part in parts), default=1))


def last_line(moments: Sequence[Moment], key: str, most: int = MOST_POINTS) -> Line:
    """The same for what has no mean to speak of, as a coefficient that grows by factors: a point is its last moment."""
    found = [(moment.step, moment.values[key]) for moment in moments if key in moment.values]
    chosen = [found[part][-1] for part in groups(len(found), most)]
    return Line([float(step) for step, _ in chosen], [value for _, value in chosen], 1)


class Service(NamedTuple):
    """What a layer's experts served over time: the pairs of each group of moments, added up, at its last step."""

    steps: list[float]
    served: list[Served]
    moments: int


def service(moments: Sequence[Moment], layer: str, most: int = MOST_COLUMNS) -> Service:
    """Of the moments that say it, and have as many experts as the last one."""
    told = [(moment.step, moment.layers[layer]) for moment in moments if layer in moment.layers]
    experts = len(told[-1][1].pairs) if told else 0
    told = [(step, served) for step, served in told if len(served.pairs) == experts]
    parts = groups(len(told), most)
    added = [
        Served(
            sum(served.tokens for _, served in told[part]),
            tuple(np.sum([served.pairs for _, served in told[part]], axis=0).tolist()),
        )
        for part in parts
    ]
    return Service(
        [float(told[part][-1][0]) for part in parts],
        added,
        max((part.stop - part.start for part in parts), default=1),
    )
