"""Images and which expert works on which of their patches, as pictures for papers.

Shapes: n images, of H by W pixels, N tokens of an image, E experts, K patches of an expert, of h by w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from numpy.typing import NDArray

from .canvas import INK, NARROW, WIDE, axes_of, dress
from .tints import tints_of

OPACITY = 0.62  # of the tint
MAX_NAMED = 24  # experts in a legend
Pixels = NDArray[np.uint8]
Weights = NDArray[np.floating]
Grid = tuple[int, int, int]


def routing_map(image: Pixels, weights_NE: Weights, grid: Grid, ax: Axes | None = None, *, title: str = "") -> Axes:
    """An image, and beside it the same with each patch in the colour of its strongest expert.

    image: (H, W, 3). weights_NE: gate weights, negative where inactive. grid: tokens before the first patch, rows and
    columns of patches. ax: as in `expert_load`.
    """
    image = np.asarray(image)
    strongest, tinted = _tinted(image[None], np.asarray(weights_NE)[None], grid)
    num_experts = np.shape(weights_NE)[-1]
    ax = axes_of(ax, NARROW, 0.5 + 3.0 * image.shape[0] / image.shape[1], square=True)
    _show(ax, mosaic([[image, tinted[0]]], *image.shape[:2]), title)
    _legend(ax, strongest, num_experts)
    return ax


def routing_maps(
    images_nHWC: Pixels,
    weights_nNE: Weights,
    grid: Grid,
    ax: Axes | None = None,
    *,
    title: str = "",
    columns: int = 8,
) -> Axes:
    """Images in rows, below each the same with each patch in the colour of its strongest expert.

    As `routing_map`; columns: how many images stand in a row.
    """
    images = np.asarray(images_nHWC)
    if columns < 1:
        raise ValueError(f"columns is {columns}; allowed: at least 1")
    strongest, tinted = _tinted(images, np.asarray(weights_nNE), grid)
    columns = min(columns, len(images))
    rows = []
    for start in range(0, len(images), columns):
        for tiles in (images[start : start + columns], tinted[start : start + columns]):
            rows.append(list(tiles) + [None] * (columns - len(tiles)))
    down = len(rows) * images.shape[1] / images.shape[2]
    unit = min(1.1, (WIDE - 1.2) / columns, 12 / down)  # inches
    ax = axes_of(ax, 1.2 + unit * columns, 0.5 + unit * down, square=True)
    _show(ax, mosaic(rows, *images.shape[1:3]), title)
    _legend(ax, strongest, np.shape(weights_nNE)[-1])
    return ax


def favourite_patches(
    patches_EKhw3: Pixels, ax: Axes | None = None, *, title: str = "", weights_EK: Weights | None = None
) -> Axes:
    """For each expert a row of the patches that it likes most.

    weights_EK: not a number where an expert has fewer patches, which leaves their places empty. ax: as in
    `expert_load`.
    """
    patches = np.asarray(patches_EKhw3)
    if patches.ndim != 5 or patches.shape[-1] != 3 or patches.size == 0:
        raise ValueError(f"patches_EKhw3 has shape {patches.shape}; allowed: (experts, patches, height, width, 3)")
    there = np.ones(patches.shape[:2], bool) if weights_EK is None else np.isfinite(weights_EK)
    if there.shape != patches.shape[:2]:
        raise ValueError(f"weights_EK has shape {there.shape}; allowed: {patches.shape[:2]}")
    rows = [
        [patch if here else None for patch, here in zip(*row, strict=True)] for row in zip(patches, there, strict=True)
    ]
    num_experts, most = there.shape
    height, width = patches.shape[2:4]
    side = min(0.46, 12 / num_experts, (WIDE - 1) / most)
    ax = axes_of(ax, 1.0 + side * most, 0.5 + side * num_experts * height / width, square=True)
    gap = _gap(height)
    _show(ax, mosaic(rows, height, width), title)
    ax.set_axis_on()
    ax.set_xticks([])
    middles = np.arange(num_experts) * (height + gap) + (height - 1) / 2
    ax.set_yticks(middles, [str(expert) for expert in range(num_experts)])
    ax.set_ylabel("expert", color=INK)
    return ax


def mosaic(rows: Sequence[Sequence[Pixels | None]], height: int, width: int) -> Pixels:
    """Tiles of that size, in rows, as one picture with an alpha channel; gaps and None are transparent."""
    gap, columns = _gap(height), max(map(len, rows))
    picture = np.zeros((len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for r, row in enumerate(rows):
        for c, tile in enumerate(row):
            if tile is not None:
                top, left = r * (height + gap), c * (width + gap)
                picture[top : top + height, left : left + width, :3] = tile
                picture[top : top + height, left : left + width, 3] = 255
    return picture


def _gap(height: int) -> int:
    return max(1, height // 14)


def _tinted(images: Pixels, weights: Weights, grid: Grid) -> tuple[NDArray[np.int64], Pixels]:
    """(n, rows, columns) strongest experts, −1 where there is none, and the images in their colours."""
    if images.ndim != 4 or images.shape[-1] != 3 or images.size == 0:
        raise ValueError(f"images have shape {images.shape}; allowed: (images, height, width, 3), none of them 0")
    prefix, rows, columns = grid
    if weights.ndim != 3 or weights.shape[:2] != (len(images), prefix + rows * columns) or weights.shape[2] == 0:
        needed = f"({len(images)}, {prefix} + {rows} · {columns}, experts)"
        raise ValueError(f"weights have shape {weights.shape}; allowed: {needed}, as images and grid say")
    patches = np.nan_to_num(weights[:, prefix:].astype(float), nan=-1.0)
    strongest = np.where(patches.max(axis=2) < 0, -1, patches.argmax(axis=2)).reshape(-1, rows, columns)
    height, width = images.shape[1:3]
    tall = strongest[:, np.arange(height) * rows // height][:, :, np.arange(width) * columns // width]
    grey = images.mean(axis=-1, keepdims=True)
    color = 255 * tints_of(weights.shape[2])[tall]
    tinted = np.where(tall[..., None] < 0, 0.5 * grey + 64, (1 - OPACITY) * grey + OPACITY * color)
    return strongest, tinted.round().astype(np.uint8)


def _show(ax: Axes, picture: Pixels, title: str) -> None:
    ax.imshow(picture, interpolation="none")
    dress(ax, title=title)
    ax.set_axis_off()


def _legend(ax: Axes, strongest: NDArray[np.int64], num_experts: int) -> None:
    """The experts that are strongest somewhere, those of most patches if they are too many for a legend."""
    counts = np.bincount(strongest[strongest >= 0], minlength=num_experts)
    named = np.sort(np.argsort(-counts, kind="stable")[: min(MAX_NAMED, int((counts > 0).sum()))])
    tints = tints_of(num_experts)
    handles = [Patch(facecolor=tints[expert], label=str(expert)) for expert in named]
    if (strongest < 0).any():
        handles.append(Patch(facecolor="0.5", label="none"))
    ax.legend(
        handles=handles, title="expert", loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, borderaxespad=0,
        fontsize=8, title_fontsize=8, ncols=1 + (len(handles) > 12), handlelength=1, handleheight=1, labelcolor=INK,
    )  # fmt: skip
