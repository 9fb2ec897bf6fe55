"""What a loader is: this process's share of a data set, in batches, epoch by epoch."""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Batch = tuple[Tensor, Tensor]
"""images (B, 3, H, W) uint8, and labels (B,) int64, in CPU memory (pinned where torch sees a GPU)"""

Batches = Generator[Batch, None, None]


class Processes(Protocol):
    """Which process this is (rank of world), and how many share this machine's cores (local_world)."""

    @property
    def rank(self) -> int: ...
    @property
    def world(self) -> int: ...
    @property
    def local_world(self) -> int: ...


@dataclass(frozen=True)
class Share:
    """Plain `Processes`: by default, this one alone."""

    rank: int = 0
    world: int = 1
    local_world: int = 1


class Loader(Protocol):
    """One process's share of a data set.

    A batch belongs to whoever receives it: it is no view of a buffer that the loader writes again.
    """

    @property
    def samples(self) -> int:
        """Images that one epoch covers over all processes."""

    @property
    def units(self) -> int:
        """What results count: images."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the labels."""

    @property
    def batches(self) -> int:
        """Batches an epoch on this process."""

    def __len__(self) -> int: ...

    def epoch(self, number: int, first: int = 0) -> Batches:
        """The batches of epoch `number`, from batch `first` on; earlier ones are skipped without being read.

        What is in the batches depends on the seed and the number alone. The generator's `close`, which leaving a
        loop early calls, stops its threads or workers' reading. One epoch of a loader runs at a time.

        Raises `TimeoutError` when no batch came within data.timeout, and `DataError` when an image cannot be read.
        """

    def indices(self) -> NDArray[np.int64]:
        """The images of this process in epoch 0, by their places in the data set, as batches bring them."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,): of all images of the data set, in its order."""

    @property
    def own_classes(self) -> tuple[int, ...]:
        """The classes that the data themselves name, by their numbers in `classes`, ascending."""

    def names(self) -> tuple[str, ...] | None:
        """The file of each image of the data set, relative to its folder; None where that is not known."""

    def sample(self, count: int) -> Loader:
        """A loader of so many images at most, evenly spaced over the data set, as evaluation sees them; this process
        reads them all, whatever its share.
        """


class Loaders(NamedTuple):
    train: Loader
    val: Loader


def cores(processes: Processes) -> int:
    """Cores that this process may use: those it is allowed to run on, shared with the others of this machine."""
    return max(1, len(os.sched_getaffinity(0)) // processes.local_world)
