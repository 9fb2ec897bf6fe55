"""Which stretches of a token file a process reads, in which order.

A window of N inputs from token s on has the N targets from s + 1 on. Shapes: B windows a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..loader import Processes
from ..order import EvaluationOrder, TrainingOrder, batches_of, evenly_spaced

_OFFSET = 0x0FF5E7  # sets the stream of offsets apart from that of permutations


class Windows(NamedTuple):
    """One batch: where each window starts (B,), how many inputs they have, and how many first targets of each (B,)
    are not counted."""

    starts: NDArray[np.int64]
    length: int
    ignored: NDArray[np.int64]


class Cut(Protocol):
    """A process's share of a token file."""

    @property
    def block_size(self) -> int:
        """Inputs of a whole window."""

    @property
    def samples(self) -> int:
        """Windows that one epoch covers over all processes."""

    @property
    def tokens(self) -> int:
        """Targets that one epoch counts over all processes."""

    @property
    def batches(self) -> int:
        """Batches an epoch on this process."""

    def windows(self, epoch: int, first: int = 0) -> Iterator[Windows]:
        """The batches of an epoch, from batch `first` on."""


def count_blocks(tokens: int, block_size: int) -> int:
    """Blocks that `tokens` give wherever, in the first block_size tokens, the first of them starts."""
    return max(0, (tokens - block_size) // block_size)


@dataclass(frozen=True)
class TrainingBlocks:
    """Blocks side by side in the order's permutation.

    Every epoch begins them elsewhere, so that the text is cut at other places: a function of seed and epoch alone.
    """

    order: TrainingOrder
    block_size: int

    @property
    def samples(self) -> int:
        return self.order.samples

    @property
    def tokens(self) -> int:
        return self.order.samples * self.block_size

    @property
    def batches(self) -> int:
        return self.order.batches

    def windows(self, epoch: int, first: int = 0) -> Iterator[Windows]:
        offset = self.offset(epoch)
        for indices, _ in batches_of(self.order, epoch, first):
            yield Windows(offset + indices * self.block_size, self.block_size, np.zeros_like(indices))

    def offset(self, epoch: int) -> int:
        """Where the first block of an epoch begins: 0 to block_size - 1."""
        seeds = np.random.SeedSequence((self.order.seed, epoch, _OFFSET))
        return int(np.random.Generator(np.random.Philox(seeds)).integers(self.block_size))


@dataclass(frozen=True)
class EvaluationWindows:
    """A window every `stride` tokens, which counts the targets that no earlier one counts: each token but the first
    of the file once, over all processes.

    Rank r has windows r, r + world, and so on. The last may be shorter, and then is a batch of its own.
    """

    file_tokens: int
    block_size: int
    stride: int
    batch_size: int
    processes: Processes

    @property
    def samples(self) -> int:
        return 1 + -(-max(0, self.tokens - self.block_size) // self.stride)

    @property
    def tokens(self) -> int:
        return self.file_tokens - 1

    @property
    def batches(self) -> int:
        return self._whole.batches + self._has_rest

    def windows(self, epoch: int, first: int = 0) -> Iterator[Windows]:
        for indices, _ in batches_of(self._whole, epoch, first):
            yield self._at(indices, self.block_size)
        if self._has_rest and first < self.batches:
            yield self._at(np.array([self.samples - 1]), self._last_length)

    def _at(self, indices: NDArray[np.int64], length: int) -> Windows:
        ignored = np.where(indices == 0, 0, self.block_size - self.stride)
        return Windows(indices * self.stride, length, ignored)

    @property
    def _last_length(self) -> int:
        return min(self.block_size, self.tokens - (self.samples - 1) * self.stride)

    @property
    def _whole(self) -> EvaluationOrder:
        """The order of the windows that have block_size inputs."""
        windows = self.samples - (self._last_length < self.block_size)
        return EvaluationOrder(windows, self.batch_size, self.processes)

    @property
    def _has_rest(self) -> bool:
        last = self.samples - 1
        return self._last_length < self.block_size and last % self.processes.world == self.processes.rank


@dataclass(frozen=True)
class SampleWindows:
    """So many whole windows at most, evenly spaced over the file, in one batch; the process that asks reads all of
    them, and every target counts. A file shorter than a window is one shorter window.
    """

    file_tokens: int
    block_size: int
    count: int

    batches = 1

    @property
    def samples(self) -> int:
        return min(self.count, max(1, self._targets // self.block_size))

    @property
    def tokens(self) -> int:
        return self.samples * self._length

    def windows(self, epoch: int, first: int = 0) -> Iterator[Windows]:
        if first == 0:
            starts = evenly_spaced(self.samples, self._targets - self._length + 1)
            yield Windows(starts, self._length, np.zeros_like(starts))

    @property
    def _targets(self) -> int:
        return self.file_tokens - 1

    @property
    def _length(self) -> int:
        return min(self.block_size, self._targets)
