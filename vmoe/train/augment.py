"""Augmentation of a training batch on the device, and the loss that fits the targets it makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from timm.data import Mixup
from timm.data.random_erasing import RandomErasing
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from vmoe.config import AugmentConfig


class Mixed(NamedTuple):
    """images: (B, 3, H, W). targets: (B,) labels, or (B, C) shares after mixing."""

    images: Tensor
    targets: Tensor


class Augment:
    """A policy's operations on uint8 images, then, on normalised ones, random erasing and mixup or cutmix, in the order
    of timm and DeiT.

    policy: from uint8 images (B, 3, H, W) to such images (`vmoe.data.make_augmentation`), or None.
    loss: as `train.loss`.
    """

    def __init__(
        self,
        config: AugmentConfig,
        policy: Callable[[Tensor], Tensor] | None,
        *,
        loss: str,
        label_smoothing: float,
        num_classes: int,
        device: torch.device,
    ):
        self.policy = policy
        self.erasing = RandomErasing(config.erasing, mode="pixel", device=device) if config.erasing else None
        self.mixup = None
        if config.mixup or config.cutmix:
            self.mixup = Mixup(
                mixup_alpha=config.mixup,
                cutmix_alpha=config.cutmix,
                prob=config.mix_probability,
                switch_prob=config.mix_switch,
                label_smoothing=label_smoothing,
                num_classes=num_classes,
            )
        self.criterion = criterion_for(loss, label_smoothing, mixed=self.mixup is not None)

    def operate(self, images: Tensor) -> Tensor:
        """The policy's operations, each image's own. images: uint8 (B, 3, H, W)."""
        return images if self.policy is None else self.policy(images)

    def __call__(self, images: Tensor, labels: Tensor) -> Mixed:
        """images: normalised, (B, 3, H, W), with B even if mixing is on. labels: (B,)."""
        if self.erasing is not None:
            images = self.erasing(images)
        return Mixed(images, labels) if self.mixup is None else Mixed(*self.mixup(images, labels))


def criterion_for(loss: str, label_smoothing: float, *, mixed: bool) -> nn.Module:
    """The mean loss of logits (B, C) and targets; mixed: these are shares (B, C), and smooth already.

    Binary cross-entropy takes each class that has any share for present (facebookresearch/deit, engine.py).
    """
    if loss == "bce":
        return BinaryCrossEntropy(label_smoothing, target_threshold=0.0 if mixed else None)
    return SoftTargetCrossEntropy() if mixed else LabelSmoothingCrossEntropy(label_smoothing)
