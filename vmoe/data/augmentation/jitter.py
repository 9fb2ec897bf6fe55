"""torchvision's ColorJitter of one strength for brightness, contrast and saturation, and none for hue."""

from __future__ import annotations

import torch

from .program import Program, Step

KINDS = ("brightness", "contrast", "color")


def draw_jitters(strength: float, samples: int, generator: torch.Generator | None = None) -> list[Program]:
    """The three operations in an order of its own for each image, each with a factor from max(0, 1 - s) to 1 + s."""
    orders = torch.rand(samples, len(KINDS), generator=generator).argsort(1).tolist()
    low, high = max(0.0, 1 - strength), 1 + strength
    factors = low + (high - low) * torch.rand(samples, len(KINDS), generator=generator, dtype=torch.float64)
    return [
        tuple(Step(KINDS[kind], factor) for kind, factor in zip(order, row, strict=True))
        for order, row in zip(orders, factors.tolist(), strict=True)
    ]
