"""Image classification: what the model sees of a batch, and the loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .accuracy import Accuracy
from .augment import Augment
from .task import RoutedLabels, Task


class ImageTask(Task):
    """normalize: from uint8 images (B, 3, H, W) to the model's input, on the device. image_size: of its sides in
    evaluation; train_sizes: in training, epoch by epoch, the last one in all that follow. channels_last: lay that
    input out so.
    """

    UNIT, SHORT, SAMPLE, LABEL = "image", "img", "image", "classes"

    def __init__(
        self,
        normalize: nn.Module,
        augment: Augment,
        *,
        num_classes: int,
        image_size: int,
        train_sizes: Sequence[int],
        device: torch.device,
        channels_last: bool = False,
    ):
        self.normalize = normalize
        self.augment = augment
        self.num_labels = num_classes
        self.device = device
        self.channels_last = channels_last
        self.units_per_sample = 1
        self.sample = torch.zeros(1, 3, image_size, image_size, device=device)
        self.train_sizes = train_sizes
        self.train_samples = [self.sample.new_zeros(1, 3, side, side) for side in sorted(set(train_sizes))]

    def train_shape(self, epoch: int) -> torch.Size:
        side = self.train_sizes[min(epoch, len(self.train_sizes) - 1)]
        return torch.Size((3, side, side))

    def forward(self, network: nn.Module, inputs: Tensor) -> Tensor:
        logits: Tensor = network(inputs)
        return logits

    def prepare(self, inputs: Tensor) -> Tensor:
        images: Tensor = self.normalize(inputs)
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images

    def training_loss(self, network: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        mixed = self.augment(self.prepare(self.augment.operate(inputs)), targets)
        loss: Tensor = self.augment.criterion(self.forward(network, mixed.images).float(), mixed.targets)
        return loss

    def count(self, targets: Tensor) -> int:
        return len(targets)

    def scorer(self) -> Accuracy:
        return Accuracy(self.num_labels, self.device)

    def routed_labels(self, inputs: Tensor, targets: Tensor) -> RoutedLabels:
        return RoutedLabels(targets, None)
