"""The augmentation of a batch: a policy's draws for it, laid out and applied.

Against timm's transform of the same string, applied image by image:

| what | here |
|---|---|
| operations, their number and order, magnitudes, signs, interpolation | drawn from the same distributions, by torch |
| colour operations, sharpness, blur | the same bytes |
| geometric operations | the same fill, values within one of 255 (float32 instead of float64, fractions cut off) |
| geometric operations in a row | interpolated once instead of each time; the same fill but for a seam along it |
| `Posterize` to no bits (`inc1` at level 10) | black, as from Pillow before 13; from 13 on timm raises an error there |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from .draws import draw_programs
from .plan import apply_plan, plan_batch
from .policy import Policy, parse_policy

SOME_SIZE = 224


def make_augmentation(policy: str, mean: Sequence[float], *, interpolation: str = "random") -> Augmentation:
    """What timm's `create_transform` makes of `auto_augment=policy`, for batches.

    policy: "rand-m9-mstd0.5-inc1" and the like, "3a" or "3a-jitter0.3"; see `policy` for the grammar.
    mean: of each channel, in [0, 1]; its colour fills what geometric operations leave empty.
    interpolation: of geometric operations: "bilinear", "bicubic" or, for one of the two each time, "random". timm
    takes that of its crop, so that DeiT has "bicubic" here.

    Raises ValueError, with the policy and its part, for what is not supported.
    """
    parse_policy(policy, SOME_SIZE, mean, interpolation)  # says at once what is wrong with it
    return Augmentation(lambda side: parse_policy(policy, side, mean, interpolation))


class Augmentation:
    """Augments batches of images, each image by its own draws.

    policy_for: the policy for images of so many pixels at the shorter side, which bounds absolute translations.

    What it does is a function of the images and of the generator's state alone, the same on every device but for
    rounding. The draws are made on the host; nothing is read back from the device.
    """

    def __init__(self, policy_for: Callable[[int], Policy]) -> None:
        self.policy_for = cache(policy_for)

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A new batch: uint8 (B, 3, H, W), like `images`, in [0, 255].

        generator: on the CPU; by default torch's own one there.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images are {images.dtype} {tuple(images.shape)}; allowed: uint8 (B, 3, H, W)")
        policy = self.policy_for(min(images.shape[2:]))
        programs = draw_programs(policy, len(images), generator)
        return apply_plan(images, plan_batch(programs, policy.fill, *images.shape[2:]))
