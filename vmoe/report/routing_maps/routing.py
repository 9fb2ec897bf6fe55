"""What the maps show: images, and in each MoE layer the gate weights of each of their tokens.

Shapes: n images, H × W pixels, N tokens an image, E experts, K favourites, h × w pixels around a patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Weights = NDArray[np.floating[Any]]
Grid = tuple[int, int, int]

INACTIVE = -1  # a weight of 0 is possible


@dataclass(frozen=True, eq=False)
class MapLayer:
    """One MoE layer.

    name: such as ``blocks.3.mlp``. grid: (prefix, rows, columns), the tokens before the first patch, and the patches,
    which follow row by row. weights: (n, N, E) with N = prefix + rows · columns, finite, −1 where inactive.
    """

    name: str
    grid: Grid
    weights: Weights

    def __post_init__(self) -> None:
        prefix, rows, columns = self.grid
        if not all(isinstance(size, int) for size in self.grid) or prefix < 0 or rows < 1 or columns < 1:
            allowed = "three whole numbers, 0 or more, 1 or more, 1 or more"
            raise ValueError(f"{self.name}: grid is {self.grid}; allowed: {allowed}")
        shape, tokens = self.weights.shape, prefix + rows * columns
        if len(shape) != 3 or shape[1] != tokens or not shape[2] or not np.issubdtype(self.weights.dtype, np.floating):
            raise ValueError(
                f"{self.name}: weights is {self.weights.dtype} of shape {shape}; allowed: reals of shape"
                f" (images, {tokens}, experts) for grid {self.grid}"
            )
        wrong = ~np.isfinite(self.weights) | (self.weights < 0) & (self.weights != INACTIVE)
        if wrong.any():
            found = self.weights[wrong][0]
            raise ValueError(f"{self.name}: weights holds {found}; allowed: 0 or more, and −1 where inactive")

    @property
    def num_experts(self) -> int:
        return self.weights.shape[2]

    @property
    def patch_weights(self) -> Weights:
        """(n, rows · columns, E): without the tokens before the first patch."""
        return self.weights[:, self.grid[0] :]

    def patch_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in pixels of a patch of an image of that size."""
        return height // self.grid[1], width // self.grid[2]


@dataclass(frozen=True, eq=False)
class Favourites:
    """The patches that each expert of a layer weighs most.

    patches: (E, K, h, w, 3), the heaviest first, each in the middle of what is cut out, which is more than the patch
    where that is small. weights: (E, K), nan where an expert has fewer.
    """

    patches: Pixels
    weights: Weights

    def __post_init__(self) -> None:
        shape = self.patches.shape
        if self.patches.dtype != np.uint8 or len(shape) != 5 or shape[4] != 3 or not all(shape[2:4]):
            allowed = "uint8 of shape (experts, favourites, height, width, 3)"
            raise ValueError(f"patches is {self.patches.dtype} of shape {shape}; allowed: {allowed}")
        if self.weights.shape != shape[:2]:
            raise ValueError(f"weights has shape {self.weights.shape}; allowed: {shape[:2]}, one for each of patches")


@dataclass(frozen=True, eq=False)
class ImageRouting:
    """Images and how a model routed them. Raises `ValueError` where the parts do not fit together.

    images: (n, H, W, 3) uint8, as the model saw them, but for the normalisation. names: of the files, or whatever tells
    the images apart. labels: what to know of each, such as its class; may be empty. favourites: empty, or for each
    layer. left_out: MoE layers whose tokens lie in no known order of the image.
    """

    images: Pixels
    names: tuple[str, ...]
    labels: tuple[str, ...]
    layers: tuple[MapLayer, ...]
    favourites: tuple[Favourites, ...] = ()
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = self.images.shape
        if self.images.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or not all(shape):
            allowed = "uint8 of shape (images, height, width, 3), none of them 0"
            raise ValueError(f"images is {self.images.dtype} of shape {shape}; allowed: {allowed}")
        for key in ("names", "labels"):
            if len(getattr(self, key)) != shape[0]:
                raise ValueError(f"{key} has {len(getattr(self, key))} entries; allowed: {shape[0]}, one an image")
        for layer in self.layers:
            self._check_layer(layer)
        if len({layer.name for layer in self.layers}) < len(self.layers):
            raise ValueError(f"layers are {[layer.name for layer in self.layers]}; allowed: each name once")
        if self.favourites and len(self.favourites) != len(self.layers):
            raise ValueError(
                f"favourites has {len(self.favourites)} entries; allowed: none, or {len(self.layers)}, one a layer"
            )
        for layer, favourites in zip(self.layers, self.favourites, strict=False):
            if len(favourites.patches) != layer.num_experts:
                raise ValueError(
                    f"{layer.name}: favourites are of {len(favourites.patches)} experts; allowed: {layer.num_experts}"
                )

    @property
    def num_experts(self) -> int:
        """Of the layer with most."""
        return max((layer.num_experts for layer in self.layers), default=0)

    def _check_layer(self, layer: MapLayer) -> None:
        count, height, width, _ = self.images.shape
        if len(layer.weights) != count:
            raise ValueError(f"{layer.name}: weights are of {len(layer.weights)} images; allowed: {count}, as images")
        if not all(layer.patch_size(height, width)):
            raise ValueError(
                f"{layer.name}: grid is {layer.grid} on images of {height} × {width} pixels; allowed: patches of at"
                " least one pixel"
            )
