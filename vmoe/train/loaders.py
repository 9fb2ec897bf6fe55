"""What training and evaluation ask of a loader. `vmoe.data` has two that answer."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

from torch import Tensor


class ImageLoader(Protocol):
    """This process's share of a data set, in batches of (images (B, 3, H, W) uint8, labels (B,) int64)."""

    @property
    def samples(self) -> int:
        """Images an epoch covers, over all processes."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""

    def __len__(self) -> int:
        """Batches an epoch on this process."""

    def epoch(self, number: int) -> Generator[tuple[Tensor, Tensor]]:
        """The batches of epoch `number`; the order depends on nothing but the number and the loader's seed."""
