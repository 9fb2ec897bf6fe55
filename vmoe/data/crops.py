"""Which part of an image becomes a sample, for a whole batch at once.

A crop is a row (top, left, height, width, flipped) in the pixels of the stored image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .order import Keys, uniforms

Crops = NDArray[np.int64]
Sizes = NDArray[np.int64]

_ATTEMPTS = 10


def random_crops(
    heights: Sizes,
    widths: Sizes,
    keys: Keys,
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    flip: float,
) -> Crops:
    """Random resized crops (B, 5), as torchvision's `RandomResizedCrop` draws them, and flips.

    The crop has a share of the area uniform in `scale` and a width to height log-uniform in `ratio`; the first of
    ten attempts that fits is taken, else the largest central crop of an allowed ratio. keys: (B,), one an image.
    """
    draws = uniforms(keys, 2 * _ATTEMPTS + 3)
    area = (heights * widths)[:, None] * _between(draws[:, :_ATTEMPTS], *scale)
    aspect = np.exp(_between(draws[:, _ATTEMPTS : 2 * _ATTEMPTS], *np.log(ratio)))
    crop_widths = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    crop_heights = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (crop_widths > 0) & (crop_widths <= widths[:, None])
    fits &= (crop_heights > 0) & (crop_heights <= heights[:, None])

    rows = np.arange(len(keys))
    attempt = fits.argmax(1)
    found = fits[rows, attempt]
    whole = np.clip(widths / heights, *ratio)  # the allowed ratio nearest to the image's own
    height = np.where(found, crop_heights[rows, attempt], np.minimum(heights, np.rint(widths / whole).astype(np.int64)))
    width = np.where(found, crop_widths[rows, attempt], np.minimum(widths, np.rint(heights * whole).astype(np.int64)))
    height, width = np.maximum(height, 1), np.maximum(width, 1)

    top = np.where(found, (draws[:, -3] * (heights - height + 1)).astype(np.int64), (heights - height) // 2)
    left = np.where(found, (draws[:, -2] * (widths - width + 1)).astype(np.int64), (widths - width) // 2)
    return np.stack([top, left, height, width, draws[:, -1] < flip], axis=1)


def central_crops(heights: Sizes, widths: Sizes, *, share: float) -> Crops:
    """Central squares (B, 5) whose side is `share` of the image's shorter side."""
    side = np.maximum(np.rint(np.minimum(heights, widths) * share).astype(np.int64), 1)
    return np.stack([(heights - side) // 2, (widths - side) // 2, side, side, np.zeros_like(side)], axis=1)


def _between(uniform: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    return low + uniform * (high - low)
