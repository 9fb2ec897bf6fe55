"""Rotation, shears and translations of a batch, as PIL's affine transforms: several in a row are one resampling.

A matrix (a, b, c, d, e, f) is PIL's: it maps a point (x, y) of the result to the point (a x + b y + c, d x + e y + f)
of the source, where the centre of the first pixel is (0.5, 0.5). A point outside the source takes the fill colour;
inside, what lies beyond the border counts as the pixel at the border. Values are cut off to bytes, not rounded.

Suffixes: N the images of a call, 3 their channels, P their pixels in a row, K their arguments; 1 broadcasts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Matrix = tuple[float, float, float, float, float, float]

SLACK = 2**-10  # added before fractions are cut off, so that float32's error takes no integer below itself


def rotate(degrees: float, width: int, height: int) -> Matrix:
    """Counter-clockwise about the centre, as `Image.rotate`."""
    angle = -math.radians(degrees)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)


# By the name of timm's function: the matrix of an argument for images of some width and height.
MATRICES: dict[str, Callable[[float, int, int], Matrix]] = {
    "rotate": rotate,
    "shear_x": lambda factor, _, __: (1.0, factor, 0.0, 0.0, 1.0, 0.0),
    "shear_y": lambda factor, _, __: (1.0, 0.0, 0.0, factor, 1.0, 0.0),
    "translate_x_rel": lambda share, width, _: (1.0, 0.0, share * width, 0.0, 1.0, 0.0),
    "translate_y_rel": lambda share, _, height: (1.0, 0.0, 0.0, 0.0, 1.0, share * height),
    "translate_x_abs": lambda pixels, _, __: (1.0, 0.0, pixels, 0.0, 1.0, 0.0),
    "translate_y_abs": lambda pixels, _, __: (1.0, 0.0, 0.0, 0.0, 1.0, pixels),
}


def compose(outer: Matrix, inner: Matrix) -> Matrix:
    """The matrix of the point that outer makes of inner's."""
    a, b, c, d, e, f = outer
    g, h, i, j, k, m = inner
    return (a * g + b * j, a * h + b * k, a * i + b * m + c, d * g + e * j, d * h + e * k, d * i + e * m + f)


def stages(matrices: Sequence[Matrix]) -> list[Matrix]:
    """From a point of the result of transforms in a row to the sources of the last, the last two, … and all of them."""
    composed = [matrices[-1]]
    for matrix in reversed(matrices[:-1]):
        composed.append(compose(matrix, composed[-1]))
    return composed


def warp(images_N3HW: Tensor, arguments_NK: Tensor, *, cubic: bool, along_x: bool, along_y: bool) -> Tensor:
    """arguments: of each image the fill colour and then its stages, whose last one says where a pixel comes from; a
    pixel that is outside at any of them is filled. cubic: bicubic, otherwise bilinear. along_x, along_y: False promises
    that no image changes in this direction.
    """
    height, width = images_N3HW.shape[2:]
    fill_N31, stages_NK = arguments_NK[:, :3].unsqueeze(2), arguments_NK[:, 3:]
    x_W = torch.arange(width, device=images_N3HW.device) + 0.5
    y_H1 = torch.arange(height, device=images_N3HW.device).unsqueeze(1) + 0.5
    inside_NHW = torch.ones((), dtype=torch.bool, device=images_N3HW.device)
    for stage_N6 in stages_NK.split(6, 1):
        a, b, c, d, e, f = (entry_N.view(-1, 1, 1) for entry_N in stage_N6.unbind(1))
        x_NHW, y_NHW = a * x_W + (b * y_H1 + c), e * y_H1 + (d * x_W + f)
        inside_NHW = inside_NHW & (x_NHW >= 0) & (x_NHW < width) & (y_NHW >= 0) & (y_NHW < height)
    one = x_NHW.new_ones(())
    columns = taps(x_NHW, width, cubic) if along_x else [(torch.arange(width, device=one.device), one)]
    rows = taps(y_NHW, height, cubic) if along_y else [(torch.arange(height, device=one.device).unsqueeze(1), one)]
    starts = [(row * width, weight) for row, weight in rows]
    pixels_N3P = images_N3HW.flatten(2).float()
    sums_N3P = torch.full_like(pixels_N3P, SLACK)
    for start, row_weight in starts:
        for column, column_weight in columns:
            index_N1P = (start + column).expand_as(x_NHW).flatten(1).unsqueeze(1)
            weight_N1P = (row_weight * column_weight).expand_as(x_NHW).flatten(1).unsqueeze(1)
            sums_N3P.addcmul_(pixels_N3P.gather(2, index_N1P.expand_as(pixels_N3P)), weight_N1P)
    inside_N1P = inside_NHW.flatten(1).unsqueeze(1)
    warped_N3P = torch.where(inside_N1P, sums_N3P.clamp_(0, 255), fill_N31)
    return warped_N3P.to(torch.uint8).view_as(images_N3HW)


def taps(position_NHW: Tensor, size: int, cubic: bool) -> list[tuple[Tensor, Tensor]]:
    """The pixels that a point takes part of along one axis, as indices within the image, and their weights.

    Bicubic: R. Keys, Cubic convolution interpolation, 1981, with a = -1 as PIL's (torch's has a = -0.75).
    """
    position_NHW = position_NHW - 0.5
    first_NHW = position_NHW.floor()
    t = position_NHW - first_NHW
    weights: Sequence[Tensor] = (1 - t, t)
    if cubic:
        s = 1 - t
        weights = (-t * s * s, 1 + t * t * (t - 2), 1 + s * s * (s - 2), -s * t * t)
    indices_NHW = first_NHW.long() - int(cubic)
    return [((indices_NHW + i).clamp_(0, size - 1), weight) for i, weight in enumerate(weights)]
