"""What happens to every batch on the device before the model sees it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """uint8 images (B, 3, H, W) to float32: (x / 255 - mean) / std, each channel by its own."""

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        mean_C11 = torch.tensor(mean).view(-1, 1, 1)
        std_C11 = torch.tensor(std).view(-1, 1, 1)
        self.register_buffer("scale", 1 / (255 * std_C11), persistent=False)
        self.register_buffer("shift", -mean_C11 / std_C11, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return torch.addcmul(self.shift, images.float(), self.scale)
