"""What a .beton file can be written from: class folders, or arrays in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .images import ClassFolders, read_image

Pixels = NDArray[np.uint8]


class Source(Protocol):
    """Images with labels. `name` is where they come from, in errors and in the sidecar."""

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> NDArray[np.int64]: ...

    def names(self) -> tuple[str, ...] | None:
        """The file of each image; None where they come from none."""

    def read(self, index: int) -> Pixels:
        """Image `index` (H, W, 3). Raises `DataError`, naming it, if it is none."""


@dataclass(frozen=True, eq=False)
class FolderSource:
    folders: ClassFolders

    @property
    def name(self) -> str:
        return str(self.folders.path)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.folders.classes

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.folders.labels

    def names(self) -> tuple[str, ...]:
        return self.folders.names()

    def read(self, index: int) -> Pixels:
        return np.array(read_image(self.folders.files[index]))


@dataclass(frozen=True, eq=False)
class ArraySource:
    """images: each (H, W, 3) uint8, of any size. labels (N,): indices into `classes`."""

    name: str
    images: Sequence[Pixels] | Pixels
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise DataError(f"{self.name} has {len(self.images)} images and {len(self.labels)} labels")
        if len(self.labels) and (self.labels.min() < 0 or self.labels.max() >= len(self.classes)):
            raise DataError(
                f"{self.name} has labels from {self.labels.min()} to {self.labels.max()}; allowed: 0 to"
                f" {len(self.classes) - 1}, one for each class"
            )

    def names(self) -> None:
        return None

    def read(self, index: int) -> Pixels:
        image = self.images[index]
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise DataError(
                f"image {index} of {self.name} is {image.dtype} of shape {image.shape}; allowed: uint8 (H, W, 3)"
            )
        return image


def stored_shape(height: int, width: int, max_resolution: int | None) -> tuple[int, int]:
    """Height and width of an image once its longer side is at most `max_resolution`."""
    ratio = min(1.0, (max_resolution or max(height, width)) / max(height, width))
    return max(1, round(height * ratio)), max(1, round(width * ratio))
