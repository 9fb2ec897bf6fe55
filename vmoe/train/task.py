"""What a task is to the loop and to evaluation: how a batch becomes a loss, and an evaluation becomes scores.

The loop, evaluation, cost and run folder know tasks by this contract alone; there are `images` and `text`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

Figure = float | int | None


class LabelCounts(NamedTuple):
    """Of each of some labels, how many units were seen and how many of these were right; all equally long."""

    labels: tuple[int, ...]
    seen: tuple[int, ...]
    correct: tuple[int, ...]


class Kept(NamedTuple):
    """predicted (N,), target (N,): of each sample, in the order of the data set, on the CPU."""

    predicted: Tensor
    target: Tensor


@dataclass(frozen=True)
class Scores:
    """What an evaluation of a whole data set came to, over all processes.

    figures: by their keys in result.json, among them the loss. text: the same for people, in a few words.
    rank: higher is better; it decides which checkpoint is the best. units: how many were counted.
    by_label: the same label by label, and kept: sample by sample; None where that is not counted.
    """

    figures: Mapping[str, Figure | Mapping[str, Figure]]
    text: str
    rank: float
    units: int
    by_label: LabelCounts | None = None
    kept: Kept | None = None


class Scorer(Protocol):
    """Adds up an evaluation batch by batch; on the device, so that nothing waits for it."""

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Count one batch of this process."""

    def compute(self) -> Scores:
        """Of all batches of all processes, each of which calls this once."""


class RoutedLabels(NamedTuple):
    """What `RoutingStats.update` is told of a batch: a label for each of its samples or tokens, and which tokens count
    (None: all).
    """

    labels: Tensor
    counted: Tensor | None


class Task(ABC):
    """What a model is trained and judged on.

    UNIT: what is counted, and what FLOPs and rates are per. SHORT: the same in a progress bar. SAMPLE: what a batch has
    so many of. LABEL: what there are `num_labels` of.
    sample: (1, …), a model's input as evaluation has it, to measure its cost by; train_samples: one of each shape that
    is trained on. units_per_sample: of any sample trained on.
    """

    UNIT: ClassVar[str]
    SHORT: ClassVar[str]
    SAMPLE: ClassVar[str]
    LABEL: ClassVar[str]

    num_labels: int
    sample: Tensor
    train_samples: Sequence[Tensor]
    units_per_sample: int

    def train_shape(self, epoch: int) -> torch.Size:
        """Of the samples that epoch number `epoch` trains on, one of those of `train_samples`."""
        return self.train_samples[0].shape[1:]

    @abstractmethod
    def forward(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """The network's logits for inputs that are prepared."""

    @abstractmethod
    def prepare(self, inputs: Tensor) -> Tensor:
        """From a loader's inputs, on the device, to the network's."""

    @abstractmethod
    def training_loss(self, network: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a training batch as its loader gives it, on the device; augmentation is part of it."""

    @abstractmethod
    def count(self, targets: Tensor) -> int:
        """Units of a batch."""

    @abstractmethod
    def scorer(self) -> Scorer:
        """A new count of an evaluation."""

    @abstractmethod
    def routed_labels(self, inputs: Tensor, targets: Tensor) -> RoutedLabels:
        """By which labels the routing of an evaluated batch is told apart."""
