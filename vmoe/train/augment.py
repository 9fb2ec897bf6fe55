"""What happens to a training batch on the device before the model sees it, and the loss that fits: timm's."""

from __future__ import annotations

from typing import NamedTuple

import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from vmoe.config import AugmentConfig


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
