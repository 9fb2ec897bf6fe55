"""Contestants timed against each other in one run, and the host synchronisations of a step.

A race goes in rounds. Each runs every contestant once, the next one starting with the next contestant, so that a drift
of the machine hits all alike. Two rounds warm up; at least five are measured, more while the race's time lasts. A ratio
between two contestants is the **median of the rounds' own ratios**, in which drift cancels; it need not equal the ratio
of their medians.

A sample of a round is one step, or for short ones as many steps in a row as last `SAMPLE` seconds, divided by their
number. On a GPU it lies between two CUDA events, with a synchronisation before and after, none between its steps.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

WARM_UP = 2  # rounds that do not count
LEAST, MOST = 5, 50  # rounds that do
SAMPLE = 0.02  # seconds

Step = Callable[[], object]


@dataclass(frozen=True)
class Contestant:
    """One of those that do a table's work; its name is unique in the race."""

    name: str
    step: Step


@dataclass(frozen=True)
class Spread:
    """Median, quartiles and extremes of what the rounds gave."""

    median: float
    low: float
    high: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, min(values), max(values))


@dataclass(frozen=True)
class Timing:
    """seconds: of one step, round by round."""

    seconds: tuple[float, ...]

    @property
    def spread(self) -> Spread:
        return Spread.of(self.seconds)

    @property
    def median(self) -> float:
        return self.spread.median

    def over(self, baseline: Timing) -> Spread:
        """The rounds' ratios to a contestant of the same race."""
        return Spread.of([own / other for own, other in zip(self.seconds, baseline.seconds, strict=True)])


class Clock:
    """Shares a script's time among its races: each gets an equal part of what is left when it starts."""

    def __init__(self, seconds: float, races: int):
        self.deadline = time.perf_counter() + seconds
        self.races = races

    def share(self) -> float:
        """Seconds for the next race; 0 where the time is up, so that it measures `LEAST` rounds."""
        share = max(0.0, self.deadline - time.perf_counter()) / max(1, self.races)
        self.races -= 1
        return share


def race(contestants: Sequence[Contestant], device: torch.device, seconds: float) -> dict[str, Timing]:
    """Time contestants by name, warm-up included, for about so many seconds and at least `LEAST` rounds."""
    deadline = time.perf_counter() + seconds
    with no_collection():
        for _ in range(WARM_UP):
            warm = {contestant.name: sample(contestant.step, device) for contestant in contestants}
        repeats = {name: max(1, math.ceil(SAMPLE / duration)) for name, duration in warm.items()}
        samples: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
        for number in range(MOST):
            if number >= LEAST and time.perf_counter() > deadline:
                break
            for name, step in in_order_of_round(contestants, number):
                samples[name].append(sample(step, device, repeats[name]))
    return {name: Timing(tuple(seconds)) for name, seconds in samples.items()}


def in_order_of_round(contestants: Sequence[Contestant], number: int) -> Iterator[tuple[str, Step]]:
    """All contestants, each round starting with another."""
    for i in range(len(contestants)):
        contestant = contestants[(number + i) % len(contestants)]
        yield contestant.name, contestant.step


def sample(step: Step, device: torch.device, repeats: int = 1) -> float:
    """Seconds a step, in the mean of so many in a row."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record()
        for _ in range(repeats):
            step()
        end.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(end) / 1000 / repeats
    begin = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - begin) / repeats


@contextmanager
def no_collection() -> Iterator[None]:
    """Keep Python's garbage collector from running inside somebody's step."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def count_synchronisations(step: Step, device: torch.device) -> int | None:
    """How often a step makes the host wait for the GPU, as torch's debug mode sees it; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in caught)
