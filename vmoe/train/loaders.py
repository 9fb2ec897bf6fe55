"""What training and evaluation ask of a loader. `vmoe.data` has several that answer."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

from torch import Tensor

Batch = tuple[Tensor, Tensor]
"""inputs and targets: images (B, 3, H, W) uint8 and labels (B,), or tokens (B, N) and the tokens after them (B, N)"""


class Loader(Protocol):
    """This process's share of a data set, in batches."""

    @property
    def units(self) -> int:
        """What an epoch covers over all processes, in the task's unit: images, or tokens to predict."""

    def __len__(self) -> int:
        """Batches an epoch on this process."""

    def epoch(self, number: int, first: int = 0) -> Generator[Batch]:
        """The batches of epoch `number` from batch `first` on, which depend on the number and the seed alone."""

    def sample(self, count: int) -> Loader:
        """A loader of so many samples at most, evenly spaced over the data set, as evaluation sees them; all of them
        on this process, and the same ones whatever its share is.
        """
