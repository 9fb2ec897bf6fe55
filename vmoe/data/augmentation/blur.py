"""PIL's Gaussian blur of a batch: three box blurs of fractional width along each axis, each rounded to bytes.

P. Gwosdek et al., Theoretical Foundations of Gaussian Convolution by Extended Box Filtering, SSVM 2011.

In PIL's fixed point, weights are integers that sum up to 2^24. Its sums need 32 bits without a sign; here they are
int32, whose overflow wraps around to the same bits.

Suffixes: N the images that drew it, 3 their channels, R distances from 0 on; 1 broadcasts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PASSES = 3
REACH = 2  # pixels to either side, enough for standard deviations up to the square root of 6
BITS = 24


def gaussian_blur(images_N3HW: Tensor, deviation_N1: Tensor) -> Tensor:
    """deviation: of the Gaussian, in pixels, from 0 to 2.4. Beyond its border an image goes on as it is there."""
    weights_NR = box_weights(deviation_N1)
    blurred_N3HW = images_N3HW
    for axis in (3, 2):
        for _ in range(PASSES):
            blurred_N3HW = box_blur(blurred_N3HW, weights_NR, axis)
    return blurred_N3HW


def box_weights(deviation_N1: Tensor) -> Tensor:
    """(N, REACH + 1) int32: what pixels at each distance weigh in a pass: alike within a whole radius, less beyond."""
    variance_N1 = deviation_N1**2 / PASSES
    whole_N1 = ((12 * variance_N1 + 1).sqrt() - 1).div(2).floor()
    following_N1 = whole_N1 + 1
    fraction_N1 = (2 * whole_N1 + 1) * (whole_N1 * following_N1 - 3 * variance_N1)
    radius_N1 = whole_N1 + fraction_N1 / (6 * (variance_N1 - following_N1**2))
    inner_N1 = (torch.full_like(radius_N1, 2**BITS) / (2 * radius_N1 + 1)).int()
    outer_N1 = (2**BITS - (2 * whole_N1.int() + 1) * inner_N1) >> 1
    distance_R = torch.arange(REACH + 1, device=deviation_N1.device)
    return inner_N1 * (distance_R <= whole_N1) + outer_N1 * (distance_R == following_N1)


def box_blur(images_N3HW: Tensor, weights_NR: Tensor, axis: int) -> Tensor:
    size = images_N3HW.shape[axis]
    padding = (REACH, REACH, 0, 0) if axis == 3 else (0, 0, REACH, REACH)
    padded_N3HW = F.pad(images_N3HW.float(), padding, mode="replicate").int()
    centre, *others = (weight_N1.view(-1, 1, 1, 1) for weight_N1 in weights_NR.unbind(1))
    sums_N3HW = padded_N3HW.narrow(axis, REACH, size) * centre + 2 ** (BITS - 1)
    for distance, weight in enumerate(others, start=1):
        before = padded_N3HW.narrow(axis, REACH - distance, size)
        after = padded_N3HW.narrow(axis, REACH + distance, size)
        sums_N3HW += (before + after).mul_(weight)
    return (sums_N3HW >> BITS).to(torch.uint8)  # of the shifted-in signs, a byte keeps nothing
