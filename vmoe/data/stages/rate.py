"""Rates: units, such as images or tokens, a second, with their spread over repeats."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

LEAST, MOST = 5, 200  # repeats of a piece of work
SHORTEST = 0.02  # seconds of a repeat: what takes less is done several times in it
GROUPS = 8  # of batches that arrive, a repeat each


@dataclass(frozen=True)
class Rate:
    """Units a second: median and quartiles over so many repeats."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, rates: Sequence[float]) -> Rate:
        """Of the repeats' own rates; one alone is its own quartiles."""
        if len(rates) == 1:
            return cls(rates[0], rates[0], rates[0], 1)
        low, median, high = statistics.quantiles(rates, n=4, method="inclusive")
        return cls(median, low, high, len(rates))

    @property
    def seconds(self) -> float:
        """A unit takes."""
        return 1 / self.median


def time_work(work: Callable[[], object], units: int, seconds: float, *, finish: Callable[[], object] = int) -> Rate:
    """Repeat a piece of work of so many units for about so many seconds, and at least `LEAST` times after the first.

    finish: waits for what the work left to a device.
    """

    def duration(times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            work()
        finish()
        return time.perf_counter() - start

    deadline = time.perf_counter() + seconds
    duration(1)  # memory, caches and kernels come with the first
    times = max(1, round(SHORTEST / max(duration(1), 1e-7)))
    rates: list[float] = []
    while len(rates) < LEAST or (len(rates) < MOST and time.perf_counter() < deadline):
        rates.append(times * units / duration(times))
    return Rate.of(rates)


def time_arrivals(
    batches: Generator[tuple[Tensor, Tensor]],
    count: Callable[[Tensor], int],
    *,
    skip: int,
    seconds: float,
    most: int,
) -> Rate:
    """How fast a loader's batches come, for about so many seconds and at most so many batches after the skipped ones.

    count: units of a batch, by its targets. skip: batches that tell of the start alone; at least one arrives before the
    clock starts. A repeat is a group of batches in a row, since workers hand theirs over in bursts. The generator is
    closed. Raises `ValueError`: fewer than two batches.
    """
    moments: list[float] = []
    units: list[int] = []
    deadline = float("inf")
    with closing(batches):
        for number, (_, targets) in enumerate(batches, start=1):
            if number < skip:
                continue
            moments.append(time.perf_counter())
            units.append(count(targets))
            if len(moments) == 1:
                deadline = moments[0] + seconds
            if len(moments) > most or (len(moments) > LEAST and moments[-1] > deadline):
                break
    if len(moments) < 2:
        raise ValueError(f"the data make {len(moments)} batches to be timed; allowed: at least two after {skip}")
    return Rate.of(_by_groups(moments, units))


def _by_groups(moments: Sequence[float], units: Sequence[int]) -> list[float]:
    """The rate of each group: units that came after its first moment, over the time to its last."""
    intervals = len(moments) - 1
    groups = min(GROUPS, intervals)
    ends = [intervals * number // groups for number in range(groups + 1)]
    return [sum(units[start + 1 : end + 1]) / max(moments[end] - moments[start], 1e-9) for start, end in pairwise(ends)]
