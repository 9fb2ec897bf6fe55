"""Two evaluations of one model on the same images, image by image: what changes, and whether that is more than chance.

Shapes: N images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vmoe.report.table import Column, Table

Integers = NDArray[np.int64]
QUANTILE = 1.959963984540054  # of the normal distribution, for an interval of 95 %


class Interval(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """Numbers of images: right in both evaluations, only in the first, only in the second, in neither; and those that
    both take for the same class, right or wrong.
    """

    both: int
    first_only: int
    second_only: int
    neither: int
    same: int

    @classmethod
    def of(cls, first_N: Integers, second_N: Integers, target_N: Integers) -> Paired:
        """What each evaluation took each image for, and what it is."""
        one, other = first_N == target_N, second_N == target_N
        counts = (one & other, one & ~other, ~one & other, ~one & ~other, first_N == second_N)
        return cls(*(int(count.sum()) for count in counts))

    @property
    def images(self) -> int:
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def agreement(self) -> float:
        """Percent of the images that both evaluations take for the same class."""
        return 100 * self.same / max(self.images, 1)

    @property
    def difference(self) -> float:
        """Top-1 of the second less that of the first, in points."""
        return 100 * (self.second_only - self.first_only) / max(self.images, 1)

    @property
    def interval(self) -> Interval:
        """Of the difference, 95 %, in points: Wald's for matched pairs with half an image more in each of the four
        cells (Agresti & Min 2005, Statistics in Medicine 24:729, section 2.3).
        """
        gained, lost, images = self.second_only + 0.5, self.first_only + 0.5, self.images + 2
        centre = (gained - lost) / images
        width = QUANTILE * math.sqrt(gained + lost - (gained - lost) ** 2 / images) / images
        return Interval(100 * max(centre - width, -1), 100 * min(centre + width, 1))

    @property
    def p_value(self) -> float:
        """Exact, two-sided: how often at least as uneven a split of the changed images came from fair coins (McNemar's
        test by the binomial distribution).
        """
        changed, fewer = self.first_only + self.second_only, min(self.first_only, self.second_only)
        ways, term = 0, 1  # integers of any size: nothing is rounded before the division
        for number in range(fewer + 1):
            ways += term
            term = term * (changed - number) // (number + 1)
        return min(1.0, 2 * ways / 2**changed)

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "images": self.images,
            "right_in_both": self.both,
            "right_to_wrong": self.first_only,
            "wrong_to_right": self.second_only,
            "wrong_in_both": self.neither,
            "agreement": self.agreement,
            "difference": self.difference,
            "interval": list(self.interval),
            "p_value": self.p_value,
        }

    def words(self) -> list[str]:
        """For people, a sentence a line."""
        low, high = self.interval
        return [
            f"{self.images:,} images in pairs: {self.first_only:,} change from right to wrong,"
            f" {self.second_only:,} from wrong to right; {self.agreement:.2f} % are taken for the same class.",
            f"The second is {self.difference:+.2f} points of top-1 from the first, 95 % interval {low:+.2f} to"
            f" {high:+.2f}; exact McNemar p {self.p_value:.2g}.",
        ]


HEADERS = (("top1", "top-1 %", 2), ("top5", "top-5 %", 2), ("loss", "loss", 4), ("calibration_error", "ECE", 4))


def against_table(names: list[str], results: list[dict[str, Any]], paired: Paired) -> Table:
    """A row for each evaluation, the first of them first. names: of their data. results: as result.json holds them."""
    columns = [Column("data", tuple(names), {"data": tuple(names)}, numeric=False)]
    for key, header, digits in HEADERS:
        values = tuple(result[key] for result in results)
        columns.append(Column(header, tuple(f"{value:.{digits}f}" for value in values), {key: values}))
    return Table(tuple(columns), note=" ".join(paired.words()))
