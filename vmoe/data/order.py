"""Which images a process reads, in which order: the one place where epochs are shuffled and shared out.

Everything random about reading is a pure function of (seed, epoch, image), so that it does not depend on the loader,
the number of its workers, or where a run was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .loader import Processes

Indices = NDArray[np.int64]
Keys = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_COPY = np.uint64(40)  # bits above those of an image's number, where the number of its copy stands


class Order(Protocol):
    """A process's share of every epoch."""

    @property
    def batch_size(self) -> int: ...
    @property
    def samples(self) -> int:
        """Images that one epoch covers over all processes."""

    @property
    def batches(self) -> int:
        """Batches an epoch on this process."""

    def indices(self, epoch: int) -> Indices:
        """Images of this process in epoch `epoch`, batch after batch."""

    def keys(self, epoch: int) -> Keys:
        """A random number for each of `indices`, from which its augmentation follows: a function of the seed, the
        epoch, the image and, where it is repeated, the copy.
        """


@dataclass(frozen=True)
class TrainingOrder:
    """Shuffled; full batches only, equally many on each process.

    Batch b of the processes together is one slice of the epoch's order, of which rank r has every world-th image from
    the r-th on, so what `world * batch_size` images make a step does not depend on how many processes share them.
    accumulate: batches are a multiple of it. repeats: of every image, one after the other and so on different processes
    where there are several; an epoch is as long as ever, and has a `repeats`-th of the images (Hoffer et al. 2020,
    arXiv 1901.09335; the sampler of DeiT).
    """

    images: int
    batch_size: int
    processes: Processes
    seed: int
    accumulate: int = 1
    repeats: int = 1

    @property
    def batches(self) -> int:
        whole = self.images // (self.batch_size * self.processes.world)
        return whole - whole % self.accumulate

    @property
    def samples(self) -> int:
        return self.batches * self.batch_size * self.processes.world

    def indices(self, epoch: int) -> Indices:
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, epoch))))
        different = -(-self.samples // self.repeats)
        return self._share(generator.permutation(self.images)[:different].repeat(self.repeats)[: self.samples])

    def keys(self, epoch: int) -> Keys:
        base: Keys = np.random.SeedSequence((self.seed, epoch)).generate_state(1, np.uint64).view(np.uint64)
        copies = self._share(np.arange(self.samples) % self.repeats).astype(np.uint64)
        return _mix(base + self.indices(epoch).astype(np.uint64) + (copies << _COPY))

    def _share(self, order: Indices) -> Indices:
        """This process's part of what the processes read together."""
        rank, world = self.processes.rank, self.processes.world
        return order[rank::world]


@dataclass(frozen=True)
class EvaluationOrder:
    """Every image once, over all processes: rank r reads r, r + world, and so on; the last batch may be smaller."""

    images: int
    batch_size: int
    processes: Processes

    @property
    def samples(self) -> int:
        return self.images

    @property
    def batches(self) -> int:
        return -(-len(self.indices(0)) // self.batch_size)

    def indices(self, epoch: int) -> Indices:
        return np.arange(self.processes.rank, self.images, self.processes.world, dtype=np.int64)

    def keys(self, epoch: int) -> Keys:
        return np.zeros(len(self.indices(epoch)), np.uint64)


@dataclass(frozen=True)
class SampleOrder:
    """Some images, evenly spaced over all, each once; the process that asks reads all of them."""

    images: int
    count: int
    batch_size: int

    @property
    def samples(self) -> int:
        return min(self.count, self.images)

    @property
    def batches(self) -> int:
        return -(-self.samples // self.batch_size)

    def indices(self, epoch: int) -> Indices:
        return evenly_spaced(self.samples, self.images)

    def keys(self, epoch: int) -> Keys:
        return np.zeros(len(self.indices(epoch)), np.uint64)


def evenly_spaced(count: int, among: int) -> Indices:
    """`count` of the numbers from 0 to `among` - 1, at equal distances, beginning with 0."""
    return np.arange(count, dtype=np.int64) * among // max(count, 1)


def batches_of(order: Order, epoch: int, first: int = 0) -> Iterator[tuple[Indices, Keys]]:
    """The images (B,) of each batch from batch `first` on, and their random numbers (B,)."""
    indices = order.indices(epoch)
    keys = order.keys(epoch)
    for start in range(first * order.batch_size, len(indices), order.batch_size):
        chosen = slice(start, start + order.batch_size)
        yield indices[chosen], keys[chosen]


def uniforms(keys: Keys, count: int) -> NDArray[np.float64]:
    """`count` numbers in [0, 1) for each key, (B, count): a SplitMix64 stream a key."""
    steps = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
    return (_mix(keys[:, None] + steps) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(state: Keys) -> Keys:
    """SplitMix64's finaliser (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators")."""
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
