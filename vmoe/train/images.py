"""Image classification: augmentation on the device and the loss that fits it, both timm's; accuracy."""

from __future__ import annotations

from typing import NamedTuple

import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.task.evaluator import ClassificationEvaluator
from torch import Tensor, nn

from vmoe.config import AugmentConfig
from vmoe.moe.collective import is_distributed, sum_over_processes

from .task import RoutedLabels, Scores, Task


class Mixed(NamedTuple):
    """images: (B, 3, H, W). targets: (B,) labels, or (B, C) shares after mixing."""

    images: Tensor
    targets: Tensor


class Augment:
    """Mixup or cutmix, then random erasing, on the device; and the loss that fits the targets it makes."""

    def __init__(self, config: AugmentConfig, *, label_smoothing: float, num_classes: int, device: torch.device):
        self.mixup = None
        self.criterion: nn.Module = LabelSmoothingCrossEntropy(label_smoothing)
        if config.mixup or config.cutmix:
            self.mixup = Mixup(
                mixup_alpha=config.mixup,
                cutmix_alpha=config.cutmix,
                prob=config.mix_probability,
                switch_prob=config.mix_switch,
                label_smoothing=label_smoothing,
                num_classes=num_classes,
            )
            self.criterion = SoftTargetCrossEntropy()
        self.erasing = RandomErasing(config.erasing, mode="pixel", device=device) if config.erasing else None

    def __call__(self, images: Tensor, labels: Tensor) -> Mixed:
        """images: normalised, (B, 3, H, W), with B even if mixing is on. labels: (B,)."""
        targets = labels
        if self.mixup is not None:
            images, targets = self.mixup(images, labels)
        if self.erasing is not None:
            images = self.erasing(images)
        return Mixed(images, targets)


class ImageTask(Task):
    """normalize: from uint8 images (B, 3, H, W) to the model's input, on the device. image_size: of its sides."""

    UNIT, SHORT, SAMPLE, LABEL = "image", "img", "image", "classes"

    def __init__(
        self, normalize: nn.Module, augment: Augment, *, num_classes: int, image_size: int, device: torch.device
    ):
        self.normalize = normalize
        self.augment = augment
        self.num_labels = num_classes
        self.device = device
        self.units_per_sample = 1
        self.sample = torch.zeros(1, 3, image_size, image_size, device=device)

    def forward(self, network: nn.Module, inputs: Tensor) -> Tensor:
        logits: Tensor = network(inputs)
        return logits

    def prepare(self, inputs: Tensor) -> Tensor:
        images: Tensor = self.normalize(inputs)
        return images

    def training_loss(self, network: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        mixed = self.augment(self.prepare(inputs), targets)
        loss: Tensor = self.augment.criterion(self.forward(network, mixed.images).float(), mixed.targets)
        return loss

    def count(self, targets: Tensor) -> int:
        return len(targets)

    def scorer(self) -> Accuracy:
        return Accuracy(self.device)

    def routed_labels(self, inputs: Tensor, targets: Tensor) -> RoutedLabels:
        return RoutedLabels(targets, None)


class Accuracy:
    """top1, top5: percent (top5 over as many classes as there are, if fewer). loss: mean cross-entropy."""

    def __init__(self, device: torch.device):
        self.evaluator = ClassificationEvaluator(device)

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self.evaluator.update(logits, targets)

    def compute(self) -> Scores:
        samples = int(sum_over_processes(self.evaluator.counts[0].clone()))
        summary = self.evaluator.compute(distributed=is_distributed())
        top1, top5 = summary["top1"], summary["top5"]
        figures = {"top1": top1, "top5": top5, "loss": summary["loss"], "eval_samples": samples}
        text = f"top-1 {top1:.2f} %, top-5 {top5:.2f} % of {samples:,}"
        return Scores(figures, text, rank=top1, units=samples)
