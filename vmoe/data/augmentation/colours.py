"""Operations on colours and sharpness, of batches, to the byte as PIL's; from Pillow's ImageOps, ImageEnhance and C.

Every operation takes images (N, 3, H, W), uint8, and an argument for each of them, (N, 1) float32, and returns images
of the same kind. Operations without an argument pass over theirs.

Suffixes: N the images that drew an operation, 3 their channels, L the 256 levels of a channel; 1 broadcasts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .blur import gaussian_blur

ColourOperation = Callable[[Tensor, Tensor], Tensor]

LEVELS = 256


def auto_contrast(images_N3HW: Tensor, _: Tensor) -> Tensor:
    """Each channel stretched to [0, 255]; one of a single value stays."""
    low_N31 = images_N3HW.amin((2, 3)).unsqueeze(2).double()
    high_N31 = images_N3HW.amax((2, 3)).unsqueeze(2).double()
    identity_L = torch.arange(LEVELS, dtype=torch.float64, device=images_N3HW.device)
    scale_N31 = identity_L[-1] / (high_N31 - low_N31).clamp(min=1)  # a true division, unlike that of a number
    table_N3L = (identity_L * scale_N31 + -low_N31 * scale_N31).clamp(0, 255)  # PIL's rounding needs its float64
    return look_up(torch.where(high_N31 > low_N31, table_N3L, identity_L), images_N3HW.flatten(2).long(), images_N3HW)


def equalize(images_N3HW: Tensor, _: Tensor) -> Tensor:
    """Each channel by its cumulative histogram; one with too few pixels beside its highest value stays."""
    pixels_N3P = images_N3HW.flatten(2).long()
    counts_N3L = pixels_N3P.new_zeros(*pixels_N3P.shape[:2], LEVELS)
    counts_N3L.scatter_add_(2, pixels_N3P, pixels_N3P.new_ones(()).expand_as(pixels_N3P))
    highest_N31 = counts_N3L.gather(2, pixels_N3P.amax(2, keepdim=True))
    step_N31 = (pixels_N3P.shape[2] - highest_N31) // 255
    below_N3L = counts_N3L.cumsum(2) - counts_N3L
    table_N3L = ((step_N31 // 2 + below_N3L) // step_N31.clamp(min=1)).clamp(max=255)
    identity_L = torch.arange(LEVELS, device=images_N3HW.device)
    return look_up(torch.where(step_N31 > 0, table_N3L, identity_L), pixels_N3P, images_N3HW)


def look_up(table_N3L: Tensor, pixels_N3P: Tensor, images_N3HW: Tensor) -> Tensor:
    """pixels: those of images, flat, as indices."""
    return table_N3L.to(torch.uint8).gather(2, pixels_N3P).view_as(images_N3HW)


def invert(images_N3HW: Tensor, _: Tensor) -> Tensor:
    return 255 - images_N3HW


def posterize(images_N3HW: Tensor, bits_N1: Tensor) -> Tensor:
    """So many of the eight bits kept; black for none, which Pillow refuses from version 13 on."""
    mask_N1 = ((255 << (8 - bits_N1.int().clamp(0, 8))) & 255).to(torch.uint8)
    return images_N3HW & spread(mask_N1)


def solarize(images_N3HW: Tensor, threshold_N1: Tensor) -> Tensor:
    """Values from the threshold on inverted."""
    bright_N3HW = images_N3HW >= spread(threshold_N1.short())
    return images_N3HW ^ bright_N3HW.to(torch.uint8).mul_(255)  # on a CPU much faster than `where`


def solarize_add(images_N3HW: Tensor, addend_N1: Tensor) -> Tensor:
    """Added to values below 128: at most 128, so that nothing overflows."""
    return images_N3HW + (images_N3HW < 128) * spread(addend_N1.to(torch.uint8))


def color(images_N3HW: Tensor, factor_N1: Tensor) -> Tensor:
    """0: greyscale, 1: as it is."""
    return blend(grey(images_N3HW), images_N3HW, factor_N1)


def desaturate(images_N3HW: Tensor, factor_N1: Tensor) -> Tensor:
    """1: greyscale, 0: as it is."""
    return color(images_N3HW, (1 - factor_N1).clamp(0, 1))


def contrast(images_N3HW: Tensor, factor_N1: Tensor) -> Tensor:
    """0: everywhere the mean of the image in greyscale, to the nearest integer; 1: as it is."""
    grey_N1HW = grey(images_N3HW)
    pixels = grey_N1HW[0].numel()
    mean_N111 = (2 * grey_N1HW.sum((1, 2, 3), keepdim=True) + pixels) // (2 * pixels)
    return blend(mean_N111, images_N3HW, factor_N1)


def brightness(images_N3HW: Tensor, factor_N1: Tensor) -> Tensor:
    """0: black, 1: as it is."""
    return blend(torch.zeros_like(images_N3HW[:, :1]), images_N3HW, factor_N1)


def sharpness(images_N3HW: Tensor, factor_N1: Tensor) -> Tensor:
    """0: smoothed, 1: as it is. The outermost pixels stay."""
    smooth_N3HW = images_N3HW.float()
    rows_N3HW = smooth_N3HW[..., :-2, :] + smooth_N3HW[..., 1:-1, :] + smooth_N3HW[..., 2:, :]
    box_N3HW = rows_N3HW[..., :-2] + rows_N3HW[..., 1:-1] + rows_N3HW[..., 2:]
    inner_N3HW = smooth_N3HW[..., 1:-1, 1:-1]
    inner_N3HW.copy_(((box_N3HW + 4 * inner_N3HW) / 13).round_())  # (1 1 1, 1 5 1, 1 1 1) / 13: never at a half
    return blend(smooth_N3HW, images_N3HW, factor_N1)


def grey(images_N3HW: Tensor) -> Tensor:
    """ITU-R 601 luma, (N, 1, H, W), in PIL's fixed point."""
    red, green, blue = images_N3HW.int().split(1, 1)
    return (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16


def blend(degenerate: Tensor, images_N3HW: Tensor, factor_N1: Tensor) -> Tensor:
    """From degenerate images (factor 0) to these (1) and beyond, fractions cut off."""
    base = degenerate.float()
    blended_N3HW = images_N3HW - base
    return blended_N3HW.mul_(spread(factor_N1)).add_(base).clamp_(0, 255).to(torch.uint8)


def spread(values_N1: Tensor) -> Tensor:
    """To broadcast against images."""
    return values_N1.view(-1, 1, 1, 1)


# By the name of timm's function.
COLOURS: dict[str, ColourOperation] = {
    "auto_contrast": auto_contrast,
    "equalize": equalize,
    "invert": invert,
    "posterize": posterize,
    "solarize": solarize,
    "solarize_add": solarize_add,
    "color": color,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
    "desaturate": desaturate,
    "gaussian_blur": gaussian_blur,
}
