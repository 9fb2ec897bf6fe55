"""A number that several runs of one config have measured: its mean and how far it varies from seed to seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """mean: of the runs. spread: their sample standard deviation (over n − 1); None for a single run."""

    mean: float
    spread: float | None

    @property
    def low(self) -> float:
        return self.mean - (self.spread or 0.0)

    @property
    def high(self) -> float:
        return self.mean + (self.spread or 0.0)


def sample_of(values: Sequence[float | None]) -> Sample | None:
    """Of the values of a row's runs, at least one; None where any of them is missing."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    if len(known) == 1:
        return Sample(known[0], None)
    if len(set(known)) == 1:
        return Sample(known[0], 0.0)
    if not all(map(math.isfinite, known)):
        return Sample(sum(known), math.nan)
    mean = math.fsum(known) / len(known)
    return Sample(mean, math.sqrt(math.fsum((value - mean) * (value - mean) for value in known) / (len(known) - 1)))
